// A click on a column's head sorts its table by that column: numbers by value, the rest by name; again, the other way.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.tabIndex = 0;
    const sort = () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      const key = (row) => row.cells[column].textContent.trim();
      const compare = (a, b) => {
        const [x, y] = [parseFloat(a), parseFloat(b)];
        if (!isNaN(x) && !isNaN(y)) return x - y;
        if (isNaN(x) !== isNaN(y)) return isNaN(x) ? -1 : 1;
        return a.localeCompare(b);
      };
      const rows = [...table.tBodies[0].rows].sort((a, b) => (down ? -1 : 1) * compare(key(a), key(b)));
      table.tBodies[0].append(...rows);
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
  });
}
