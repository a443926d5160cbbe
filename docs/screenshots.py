"""Takes the pictures of the Fleet page that README and docs show: ``python docs/screenshots.py``.

It starts the demo's broker, autoscaler (with simulated GPUs) and Flower, and replays the demo's
trace until the chart is full, which takes five minutes. It needs Chromium, Playwright and the
extras ``demo`` and ``flower``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

from celery_concurrent.demo.app import QUEUE
from celery_concurrent.demo.autoscaler import APP, AutoscalerProcess
from celery_concurrent.demo.client import CeleryClient, use_broker
from celery_concurrent.demo.fleet import Fleet
from celery_concurrent.demo.replay import replay
from celery_concurrent.demo.trace import shipped_trace
from celery_concurrent.embedded import EmbeddedBroker, end, start_tied, tail

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

IMAGES = Path(__file__).with_name("images")
MOST_BYTES = 150_000
#: Times the trace's pace: half of what the demo has, so that a chart shows waves and no spikes.
_SPEED = 6.0
_PORT = 5599
_SERVES_WITHIN = 30.0


class DoneError(Exception):
    """Ends the replay: the pictures are taken."""


def main() -> int:
    """The exit status: 0, or 1 when a picture is too large."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.2, help="how long the trace is replayed")
    options = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    with EmbeddedBroker() as broker:
        use_broker(broker.url)
        autoscaler = AutoscalerProcess(broker.socket.parent)
        try:
            with flower(broker.socket.parent) as url, replaying():
                _say(f"replaying for {options.minutes:g} minutes: {url}/fleet")
                time.sleep(60 * options.minutes)
                take(url)
        finally:
            autoscaler.stop()
    large = [path.name for path in IMAGES.glob("*.png") if path.stat().st_size > MOST_BYTES]
    if large:
        _say(f"larger than {MOST_BYTES:,} bytes: {', '.join(sorted(large))}")
    return 1 if large else 0


@contextmanager
def flower(folder: Path) -> Iterator[str]:
    """The demo's Flower; its address."""
    log = folder / "flower.log"
    argv = [sys.executable, "-m", "celery", "-A", APP, "flower"]
    # Controls are shown as somebody sees them who may use them.
    environ = {**os.environ, "FLOWER_UNAUTHENTICATED_API": "1"}
    with log.open("wb") as output:
        process = start_tied(
            [*argv, "--address=127.0.0.1", f"--port={_PORT}"], log=output, env=environ
        )
    url = f"http://127.0.0.1:{_PORT}"
    try:
        await_answer(f"{url}/healthcheck", process, log)
        yield url
    finally:
        end(process, patience=5.0)


def await_answer(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the server answers.

    Raises:
        RuntimeError: it has ended, or does not answer in time; with the end of its log.
    """
    deadline = time.monotonic() + _SERVES_WITHIN
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(URLError, ConnectionError), urlopen(url, timeout=2.0):  # noqa: S310  # ours
            return
        time.sleep(0.2)
    raise RuntimeError(f"Flower does not serve {url}; its log ends with:\n{tail(log, 20)}")


@contextmanager
def replaying() -> Iterator[None]:
    """Publish the trace's inputs over and over, until the end of the context."""
    closing = threading.Event()

    def check() -> None:
        if closing.is_set():
            raise DoneError

    thread = threading.Thread(target=_replay, args=(check,), name="replay")
    thread.start()
    try:
        yield
    finally:
        closing.set()
        thread.join()


def _replay(check: Callable[[], None]) -> None:
    arrivals, client = shipped_trace(), CeleryClient()
    with suppress(DoneError):
        while True:
            replay(
                arrivals,
                client,
                fleet=Fleet,
                speed=_SPEED,
                show=lambda _: None,
                check=check,
                clock=time.monotonic,
                sleep=time.sleep,
            )


def take(url: str) -> None:
    """All pictures, while the fleet is at work."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium keeps its sandbox from root.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=options)
        for name, theme, width, height in (
            ("fleet-light", "light", 1000, 1065),
            ("fleet-dark", "dark", 1000, 1065),
            ("fleet-phone", "light", 390, 844),
        ):
            page = opened(browser, f"{url}/fleet?queue={QUEUE}", theme, width, height)
            page.wait_for_function(_IS_BUSY)
            if width < 400:
                page.locator("#fleet-name").evaluate(_TO_THE_TOP)
            picture(page, name)
        page = opened(browser, f"{url}/fleet?queue={QUEUE}", "light", 1000, 900)
        page.wait_for_function(_IS_BUSY)
        open_node(page)
        picture(page, "node")
        browser.close()


#: Nodes come or go, inputs run: what a picture should show.
_IS_BUSY = """() => Number(document.getElementById("figure-running").textContent) > 30"""
_TO_THE_TOP = """heading => scrollTo(0, heading.getBoundingClientRect().top + scrollY - 80)"""


def opened(browser: Browser, url: str, theme: str, width: int, height: int) -> Page:
    """The page, in this theme and so large, once it shows a fleet."""
    page = browser.new_page(
        color_scheme="dark" if theme == "dark" else "light",
        viewport={"width": width, "height": height},
        reduced_motion="reduce",
    )
    page.goto(url)
    page.wait_for_selector("#fleet-detail:not([hidden])")
    return page


def open_node(page: Page) -> None:
    """Go to the view of a node that runs inputs; one may leave before it is there."""
    from playwright.sync_api import TimeoutError as LateError

    for _ in range(10):
        page.wait_for_function(_IS_BUSY)
        page.locator("#nodes-table tbody tr", has_text="ready").locator("a").first.click()
        with suppress(LateError):
            page.wait_for_selector("#inputs-table tbody tr:nth-child(4)", timeout=5_000)
            page.evaluate("scrollTo(0, 0)")
            return
        page.go_back()
        page.wait_for_selector("#fleet-detail:not([hidden])")
    raise RuntimeError("no node was seen with its inputs")


def picture(page: Page, name: str) -> None:
    """What is to be seen of the page now, as ``images/NAME.png``."""
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path, animations="disabled")
    _say(f"{path} ({path.stat().st_size:,} bytes)")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
