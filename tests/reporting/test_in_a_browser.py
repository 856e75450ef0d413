"""The report in headless Chromium, on a phone's width: a silent console, nothing wider than the page, tables sort."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

from metacl.reporting import write_language_evaluation, write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

PROBE = """
<script>
const table = document.querySelector("table.sortable");
const column = (name) => [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === name);
const names = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent + row.cells[1].textContent);
const found = {
  width: innerWidth, content: document.documentElement.scrollWidth, before: names(),
  figures: [...document.querySelectorAll("svg")].map((svg) => svg.getBoundingClientRect().width),
  tables: [...document.querySelectorAll("table")].map((table) => table.rows.length),
};
table.tHead.rows[0].cells[column("accuracy, %")].click();
found.down = names();
table.tHead.rows[0].cells[column("accuracy, %")].click();
found.up = names();
parent.postMessage(JSON.stringify(found), "*");
</script>
"""

PHONE = 360
"""Pixels. Chromium has no window so narrow, so the page is opened in a frame."""

FRAME = """
<script>addEventListener("message", (event) => { document.title = event.data; });</script>
<iframe src="report.html" width="360" height="800" style="border: 0"></iframe>
"""


def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed (Debian: apt-get install chromium)")
    return found


def opened(page):
    """What the page said to the console, and its document afterwards."""
    done = subprocess.run(
        [
            *(browser(), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"),
            *("--virtual-time-budget=5000", "--dump-dom", page.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return [line for line in done.stderr.splitlines() if ":CONSOLE" in line], done.stdout


@pytest.fixture
def page(tmp_path, results, metrics):
    path = tmp_path / "report.html"
    write_report(path, results, metrics, "name: demo\n" + "a: " + 300 * "very_long_" + "\n")
    return path


def test_no_error_in_the_console(page):
    said, document = opened(page)
    assert said == []
    assert "meta-learned" in document


def test_a_console_error_would_be_seen(page):
    page.write_text(page.read_text("utf-8").replace("</body>", "<script>1</script></body>"), "utf-8")
    said, _ = opened(page)
    assert len(said) == 1 and "Content Security Policy" in said[0]


def test_it_fits_a_phone_and_sorts(page):
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text("utf-8"))
    page.write_text(html.replace("</body>", f"{PROBE}</body>"), "utf-8")
    frame = page.with_name("phone.html")
    frame.write_text(FRAME, "utf-8")
    said, document = opened(frame)
    assert said == []
    found = json.loads(unescape(re.search(r"<title>(.*?)</title>", document).group(1)))
    assert found["content"] <= found["width"] == PHONE
    assert all(100 < width <= found["width"] for width in found["figures"]) and len(found["figures"]) == 3
    assert min(found["tables"]) >= 2
    assert found["before"][-1] == "meta-learned5"
    assert found["down"] == ["meta-learned5", "meta-learned0", "pretrained5", "frozen prototypes–"]
    assert found["up"] == found["down"][::-1]


def test_the_page_of_a_language_model(tmp_path, language_results):
    written = write_language_evaluation(tmp_path / "found", language_results, "a: " + 300 * "very_long_" + "\n")
    assert opened(written)[0] == []
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", written.read_text("utf-8"))
    probe = PROBE.replace("accuracy, %", "perplexity")
    (tmp_path / "report.html").write_text(html.replace("</body>", f"{probe}</body>"), "utf-8")
    (tmp_path / "phone.html").write_text(FRAME, "utf-8")
    said, document = opened(tmp_path / "phone.html")
    assert said == []
    found = json.loads(unescape(re.search(r"<title>(.*?)</title>", document).group(1)))
    assert found["content"] <= found["width"] == PHONE
    assert len(found["figures"]) == 1 and min(found["tables"]) >= 2
    assert found["down"] == ["pretrained0", "meta-learned0", "pretrained5", "meta-learned5"]
