"""How large is the page, and how fast does it open? 200 prompts × 4 models of the toy world, in headless Chromium.

    python benchmarks/page_size.py --work runs/page-size

Makes the runs (resumable; about a quarter of an hour on one core), writes the page with the media inside and beside,
and says for each: bytes, seconds from the command to open it to the first painted page whose script is done, seconds
to the first clip that can play. Nothing is cached between openings.
"""

import argparse
import dataclasses
import shutil
import time
from pathlib import Path

import pandas as pd
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.table import Table

from avbench import engine
from avbench.compare import over_motion, scores_frame
from avbench.core import Subset
from avbench.evaluate import chosen_metrics, evaluate, features_of
from avbench.folder import RunFolder, write_whole
from avbench.measure import measure
from avbench.report import clips, page
from avbench.sample import sample
from avbench.subsets import TOY_SUBSETS, load

MODELS = ("toyworld:", "toyworld:flickering", "toyworld:no-contact", "toyworld:noisy")
METRICS = ("motion_amount", "warping_error", "flow_consistency", "event_rate", "onset_rate", "motion_frechet")
OPENINGS = 5
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


def opened(browser, path: Path) -> tuple[float, float]:
    """Seconds to the page, and to the first clip."""
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    start = time.perf_counter()
    tab.goto(path.resolve().as_uri())
    tab.wait_for_selector("html[data-ready]")
    tab.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    shown = time.perf_counter() - start
    tab.evaluate("document.getElementById('clips').scrollIntoView()")
    tab.wait_for_function(
        "[...document.querySelectorAll('#arms video')].every(one => one.readyState >= 3) && arms.length"
    )
    clip = time.perf_counter() - start
    context.close()
    return shown, clip


def main() -> None:
    """Make, write, open, tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/page-size"))
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--workers", type=int, default=engine.default_workers())
    asked = parser.parse_args()
    folders = runs(asked.work, prompts(asked.prompts), asked.workers)
    place = asked.work / "media"
    list(clips.prepare(folders, place, workers=asked.workers)[1])
    frame, over = scores_frame(folders), over_motion(folders)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    rows = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS.split())
        for media in page.MEDIA:
            path = asked.work / f"report-{media}.html"
            start = time.perf_counter()
            write_whole(path, page.render(folders, frame, over, place, media=media).encode())
            wrote = time.perf_counter() - start
            times = pd.DataFrame([opened(browser, path) for _ in range(OPENINGS)])
            rows.append((media, path.stat().st_size / 1e6, wrote, *times.median(), *times.max()))
        version = browser.version
        browser.close()
    beside = sum(path.stat().st_size for path in place.glob("*.mp4")) / 1e6
    table = Table("media", "page, MB", "written, s", "opens, s", "first clip, s", "slowest", "slowest clip")
    for name, *numbers in rows:
        table.add_row(name, *(f"{number:.2f}" for number in numbers))
    console = Console()
    console.print(table)
    console.print(f"{asked.prompts} prompts × {len(MODELS)} models; {beside:.1f} MB of clips; Chromium {version}")


if __name__ == "__main__":
    main()
