"""The report page in Chromium: sorting, filtering, a phone, no scripts, dark mode, and a large page."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import test_report
from test_report import content, make_run, name_tracks, predictions

from mgc.report.page import write_page
from mgc.runs.record import RunRecord

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
runs = test_report.runs


def in_browser(page: Path, script: str, *flags: str, width: int = 1280) -> dict[str, Any]:
    """What `script`, a function's body that sees `page` (its document), returns in a window this wide."""
    frame = page.with_name("frame.html")
    frame.write_text(
        f"""<iframe id="f" style="width: {width}px; height: 900px; border: 0" src="{page.name}"></iframe>
        <script>f.onload = () => {{
          const page = f.contentDocument, view = f.contentWindow;
          document.body.dataset.result = JSON.stringify((() => {{ {script} }})());
        }};</script>"""
    )
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [*flags, "--window-size=1400,1000", "--dump-dom", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'data-result="([^"]*)"', done.stdout)
    assert found, done.stdout[:500] + done.stderr[-500:]
    return json.loads(unescape(found.group(1)))  # type: ignore[no-any-return]


USE = """
const head = page.querySelectorAll("table.systems thead th button");
const first = () => page.querySelector("table.systems tbody tr:not([hidden]) th").textContent;
const result = {buttons: head.length, before: first()};
const names = () => [...page.querySelectorAll("table.systems tbody tr th")];
const order = () => names().map(name => name.textContent.slice(0, 7));
const accuracy = head[1], p = head[4];
accuracy.click(); result.most = order(); result.sorted = accuracy.parentElement.ariaSort;
accuracy.click(); result.least = order();
p.click(); result.p = order();
result.values = [...page.querySelectorAll("table.systems tbody tr")].map(r => r.cells[5].dataset.value);
result.leaky = page.querySelectorAll("table.systems tbody tr")[5].className;
const input = page.querySelector("input[type=search]");
input.value = "FROZEN whisper"; input.dispatchEvent(new view.Event("input"));
result.shown = page.querySelectorAll("table.systems tbody tr:not([hidden])").length; result.found = first();
result.alerts = page.querySelectorAll("script").length;
result.labelled = page.querySelectorAll("input").length === page.querySelectorAll("label input").length;
return result;
"""
FITS = """
const beyond = e => e.getBoundingClientRect().right > view.innerWidth + 1;
const open = e => !e.closest(".wide, pre, details:not([open])");
const wide = [...page.querySelectorAll("main *")].filter(e => beyond(e) && open(e));
const text = page.querySelector(".figure text");
return {page: page.documentElement.scrollWidth, wide: wide.map(e => e.outerHTML.slice(0, 80)),
  letters: text.getBoundingClientRect().height, ink: view.getComputedStyle(page.body).color,
  paper: view.getComputedStyle(page.body).backgroundColor};
"""


def test_sorting_and_filtering(runs: list[RunRecord], tmp_path: Path) -> None:
    leaky = {"split_hash": "s1", "split": "random", "leaky": True, "run_id": "leak"}
    folder = runs[0].folder.with_name("leak")
    make_run("whisper", "probe", predictions(5, 9.0), folder=folder, **leaky)  # the highest accuracy
    found = in_browser(write_page(content(audio=False), tmp_path), USE)
    assert found["buttons"] == 7  # not above the intervals, which the next column sorts
    assert found["before"].startswith("majority")
    assert found["most"] == ["musicnn", "whisper", "cnn <sc", "gru <sc", "majorit", "whisper"]
    assert found["least"] == ["majorit", *found["most"][3::-1], "whisper"]
    assert found["sorted"] == "descending" and "leaky" in found["leaky"]
    numbers = [float(value) for value in found["values"][:3]]
    assert numbers == sorted(numbers) and found["p"][0] == "musicnn"  # the smallest p comes first
    assert found["shown"] == 2 and found["found"].startswith("whisper")
    assert found["alerts"] == 1 and found["labelled"]


def test_a_phone_in_the_dark_without_scripts(runs: list[RunRecord], tmp_path: Path) -> None:
    name_tracks(runs[0])
    page = write_page(content(audio=False), tmp_path)
    page.write_text(re.sub(r"<script>.*?</script>", "", page.read_text(), flags=re.DOTALL))
    light = in_browser(page, FITS, width=375)
    assert light["page"] <= 375 and light["wide"] == []
    assert light["letters"] >= 12  # px
    dark = in_browser(page, FITS, "--blink-settings=preferredColorScheme=0", width=375)
    for colours in (light, dark):
        ink, paper = (luminance(colours[name]) for name in ("ink", "paper"))
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 7
    assert luminance(dark["paper"]) < 0.05 < luminance(light["paper"])


def luminance(colour: str) -> float:
    """Of "rgb(r, g, b)", as WCAG 2 has it."""
    shares = np.array([int(n) for n in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.slow
def test_twenty_systems_and_two_thousand_tracks(tmp_path: Path) -> None:
    for number in range(20):
        path = "probe" if number % 2 else "baseline"
        record = make_run(f"ear{number}", path, predictions(number, number / 10, tracks=2000))
        if path == "probe":
            points = np.random.default_rng(number).normal(size=(2000, 2))
            table = pd.DataFrame(
                {"track_id": record.predictions().track_ids, "x": points[:, 0], "y": points[:, 1]}
            )
            table.to_csv(record.folder / "map.csv", index=False)
    name_tracks(record)
    page = write_page(content(audio=False), tmp_path)
    assert page.stat().st_size < 5e6
    timing = """const t = view.performance.timing, all = page.querySelectorAll("*").length;
    return {seconds: (t.loadEventStart - t.navigationStart) / 1000, elements: all};"""
    opened = in_browser(page, timing)
    assert opened["elements"] < 30_000  # about half a second of one core
    assert opened["seconds"] < 10  # other work may hold the cores
