"""Takes the README's pictures of a page's first screen, docs/page.png and docs/page-phone.png, in headless Chromium.

    python benchmarks/page_picture.py runs/demo/report.html

The wide one is light, the narrow one dark.
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

FLAGS = "--no-sandbox --disable-gpu --no-first-run --autoplay-policy=no-user-gesture-required"
PICTURES = {
    "page.png": ("light", {"width": 1400, "height": 900}),
    "page-phone.png": ("dark", {"width": 390, "height": 1200}),
}


def main() -> None:
    """Take both pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    asked = parser.parse_args()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS.split())
        for name, (scheme, size) in PICTURES.items():
            tab = browser.new_page(viewport=size, color_scheme=scheme)
            tab.goto(asked.page.resolve().as_uri())
            tab.wait_for_timeout(4000)  # the clips begin to play
            Image.open(io.BytesIO(tab.screenshot())).convert("RGB").save(asked.out / name, optimize=True)
            tab.close()
        browser.close()


if __name__ == "__main__":
    main()
