"""Writes the table of results.json into README.md, between its two marks."""

from __future__ import annotations

import json

from frozen import HERE, KNOWN, RESULTS, verdicts

BEGIN, END = "<!-- results: made by table.py -->\n", "<!-- end of results -->\n"


def main() -> None:
    """A line a cell: each method's accuracy, interval and spread over splits, and what others measured."""
    cells = json.loads(RESULTS.read_text())["frozen"]
    methods = list(dict.fromkeys(method for cell in cells.values() for method in cell["rows"]))
    lines = [f"| | {' | '.join(methods)} | seconds | not as others measured |", "|---" * (len(methods) + 3) + "|"]
    for key, cell in cells.items():
        dataset, shape = key.split()
        found = []
        for method in methods:
            row = cell["rows"].get(method)
            known = KNOWN.get((dataset, shape), {}).get(method)
            beside = "" if known is None else f" [{known[0]}{'' if known[1] is None else f' ± {known[1]}'}]"
            found.append("–" if row is None else f"{row['accuracy']:.2f} ± {row['half']:.2f}{beside}")
        short = [
            line.split(",")[1].split(":")[0].strip() for line, ok in verdicts(dataset, shape, cell["rows"]) if not ok
        ]
        lines.append(f"| {key} | {' | '.join(found)} | {cell['seconds_after_encoding']:.0f} | {', '.join(short)} |")
    readme = HERE / "README.md"
    before, rest = readme.read_text("utf-8").split(BEGIN)
    readme.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + rest.split(END)[1], "utf-8")


if __name__ == "__main__":
    main()
