"""Measures the page's size and opening time: 200 prompts × 4 models of the toy world, in headless Chromium.

    python benchmarks/page_size.py --work runs/page-size

Makes the runs (resumable; about a quarter of an hour on one core), compares them, writes the page with the media inside
and beside, and says for each: its size, and the median and the longest of five openings, each in a browser that has
nothing cached: seconds to the first paint, to the end of the page's script (verdict, plots and tables are there), until
the first pair of clips can play; then from scrolling to the clips until all arms of the first prompt can play, and from
scrolling to the gallery until its tiles are there.
"""

import argparse
import dataclasses
import os
import shutil
import time
from pathlib import Path

import pandas as pd
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.table import Table

from avbench import api
from avbench.core import Subset
from avbench.features.measure import measure
from avbench.generation.sample import sample
from avbench.metrics.evaluate import chosen_metrics, evaluate, features_of
from avbench.report.page import page
from avbench.report.writing import PageOptions
from avbench.storage.runs.folder import RunFolder
from avbench.storage.workers import worker_pool
from avbench.subsets.loading import TOY_SUBSETS, load

MODELS = ("toyworld:", "toyworld:flickering", "toyworld:no-contact", "toyworld:noisy")
METRICS = ("motion_amount", "warping_error", "flow_consistency", "event_rate", "onset_rate", "motion_frechet")
OPENINGS = 5
MOMENTS = ("first paint", "ready", "first pair", "clips, from their being scrolled to", "gallery, likewise")
TIMES = """() => [performance.getEntriesByName("first-contentful-paint")[0].startTime,
  performance.getEntriesByName("ready")[0].startTime]"""
CAN_PLAY = """(which) => Promise.all([...document.querySelectorAll(which)].map((one) => !(one.readyState < 3) ||
  new Promise((done) => one.addEventListener("canplay", done, { once: true })))).then(() => performance.now())"""
"""Waits until the videos among these elements can play."""
FLAGS = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update"


def prompts(count: int) -> Subset:
    """The first prompts of the shipped toy subsets as one."""
    whole = [load(name) for name in TOY_SUBSETS]
    every = [
        dataclasses.replace(prompt, id=f"{subset.name}-{prompt.id}")
        for subset in whole
        for prompt in subset.prompts[: -(-count // len(whole))]
    ]
    return dataclasses.replace(whole[0], name="page-size", prompts=tuple(every[:count]))


def runs(work: Path, subset: Subset, workers: int) -> list[RunFolder]:
    """Sampled, measured and evaluated."""
    made = []
    for model in MODELS:
        folder = RunFolder(work / (model.replace(":", "-").strip("-")))
        metrics = chosen_metrics(METRICS)
        with folder.writing():
            list(sample(folder, model, {}, [subset], range(1), workers=workers)[1])
            list(measure(folder, features_of(metrics), workers=workers)[1])
            evaluate(folder, metrics)
        made.append(folder)
    return made


def opened(browser, path: Path) -> list[float]:
    """Seconds from the start of the navigation to each of MOMENTS, by the browser's own clock."""
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    tab.goto(path.resolve().as_uri())
    tab.wait_for_selector("html[data-ready]")
    times = [*tab.evaluate(TIMES), tab.evaluate(CAN_PLAY, "#show video")]
    for place, awaited in (("clips", "#player video"), ("gallery", ".tile")):
        tab.evaluate("(id) => document.getElementById(id).scrollIntoView({ behavior: 'instant' })", place)
        start = tab.evaluate("performance.now()")
        tab.locator(awaited).first.wait_for()
        times.append(tab.evaluate(CAN_PLAY, awaited) - start)
    context.close()
    return [each / 1000 for each in times]


def main() -> None:
    """Make, write, open, tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/page-size"))
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--workers", type=int, default=worker_pool.default_workers())
    asked = parser.parse_args()
    folders = runs(asked.work, prompts(asked.prompts), asked.workers)
    found = api.compare([str(folder.path) for folder in folders])
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    rows = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS.split())
        for media in page.MEDIA:
            start = time.perf_counter()
            path = found.save_report(asked.work / media, PageOptions(media=media, workers=asked.workers))
            wrote = time.perf_counter() - start
            times = pd.DataFrame([opened(browser, path) for _ in range(OPENINGS)])
            cells = [f"{middle:.2f} (≤ {most:.2f})" for middle, most in zip(times.median(), times.max(), strict=True)]
            rows.append((media, f"{path.stat().st_size / 1e6:.1f}", f"{wrote:.1f}", *cells))
        version = browser.version
        browser.close()
    beside = sum(path.stat().st_size for path in (asked.work / "beside/media").glob("*.mp4")) / 1e6
    table = Table("media", "page, MB", "written, s", *(f"{moment}, s" for moment in MOMENTS))
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    caption = f"{asked.prompts} prompts × {len(MODELS)} models; {beside:.1f} MB of clips"
    console.print(f"{caption}; Chromium {version}; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
