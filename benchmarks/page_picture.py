"""Takes the README's pictures of a page, docs/page.png and docs/page-phone.png, in headless Chromium.

    python benchmarks/page_picture.py runs/demo/report.html --subset toy-object-contact --metric warping_error

The wide one shows a subset and the clips of the prompt at which the last run is highest; the
narrow one the same on a phone, in the dark.
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

FLAGS = "--no-sandbox --disable-gpu --no-first-run --autoplay-policy=no-user-gesture-required"


def views(tab: Page, subset: str, metric: str) -> list[Image.Image]:
    """The head, the subset and the clips, as the window shows them."""
    shown = [_shot(tab)]
    tab.get_by_role("link", name=subset, exact=True).click()
    tab.locator(".plot:visible .main-svg").first.wait_for()
    shown.append(_shot(tab))
    tab.get_by_role("link", name="clips", exact=True).click()
    tab.select_option("#subset", label=subset)
    tab.select_option("#metric", label=metric)
    last = tab.locator("#run option").count() - 1
    tab.select_option("#run", index=last)
    tab.locator("[data-jump='1']").click()
    tab.evaluate("scrub(7)")
    shown.append(_shot(tab))
    return shown


def _shot(tab: Page) -> Image.Image:
    tab.wait_for_timeout(2000)
    return Image.open(io.BytesIO(tab.screenshot())).convert("RGB")


def joined(parts: list[Image.Image], *, down: bool) -> Image.Image:
    """Parts under, or beside, one another."""
    gap = 0 if down else 12
    width = max(part.width for part in parts) if down else sum(part.width + gap for part in parts) - gap
    height = sum(part.height for part in parts) if down else max(part.height for part in parts)
    whole, at = Image.new("RGB", (width, height), "#808080"), 0
    for part in parts:
        whole.paste(part, (0, at) if down else (at, 0))
        at += part.height if down else part.width + gap
    return whole


def main() -> None:
    """Take both pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("--subset", default="toy-object-contact")
    parser.add_argument("--metric", default="warping_error")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    asked = parser.parse_args()
    with sync_playwright() as driver:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS.split())
        for name, width, height, scheme in (("page", 1280, 800, "light"), ("page-phone", 390, 844, "dark")):
            context = browser.new_context(
                offline=True,
                viewport={"width": width, "height": height},
                color_scheme=scheme,
                reduced_motion="reduce",
            )
            tab = context.new_page()
            tab.goto(asked.page.resolve().as_uri())
            shown = views(tab, asked.subset, asked.metric)
            picture = joined(shown[1:] if name == "page" else shown, down=name == "page")
            picture.save(asked.out / f"{name}.png", optimize=True)
            context.close()
        browser.close()


if __name__ == "__main__":
    main()
