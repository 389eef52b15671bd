"""A page in a browser, as a reader has it: from a file, with the network off."""

import time

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --autoplay-policy=no-user-gesture-required"
)


class Opened:
    """A page in a browser without network, and everything that it complained of or asked for."""

    def __init__(self, browser, path, hash="", **options):
        self.context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}, **options)
        self.page = self.context.new_page()
        self.complaints, self.asked = [], []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri() + hash)
        self.page.wait_for_selector("html[data-ready]")


def wait_until(tab, condition, seconds=60):
    """Wait until JavaScript is true. Playwright's own way uses eval, which the page's security policy forbids."""
    stop = time.monotonic() + seconds
    while not tab.evaluate(condition):
        assert time.monotonic() < stop, f"not within {seconds} s: {condition}"
        tab.wait_for_timeout(50)
