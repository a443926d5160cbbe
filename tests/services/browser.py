"""A real browser: Debian's Chromium, driven by Playwright; a page's faults fail its test."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import pytest

from tests.services.needs import missing
from tests.services.waiting import wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

#: Names a folder where screenshots of a run are kept.
ARTEFACTS = "CELERY_CONCURRENT_ARTEFACTS"
_PATIENCE = 20_000.0  # milliseconds, as Playwright counts


class Window:
    """A page in a browser context of its own, and what it did that no page should.

    Args:
        page: Playwright's.
        origin: the only one that it may ask anything of.
        artefacts: where its screenshots go.
    """

    def __init__(self, page: Page, origin: str, artefacts: Path) -> None:
        self.page = page
        self.faults: list[str] = []
        self._expected: list[str] = []
        self._origin = origin
        self._artefacts = artefacts
        page.set_default_timeout(_PATIENCE)
        page.on("dialog", self._dialog)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("console", lambda message: self._console(message.type, message.text))
        page.on("request", lambda request: self._request(request.url))

    def get(self, name: str) -> Locator:
        """The element with this id."""
        return self.page.locator(f"#{name}")

    def row(self, table: str, text: str) -> Locator:
        """The rows of a table, by its id, that hold this text."""
        return self.page.locator(f"#{table} tbody tr").filter(has_text=text)

    def wait_for_text(self, name: str, pattern: str, timeout: float = 20.0) -> str:
        """The text of an element, by its id, as soon as the pattern is found in it."""
        place = self.get(name)

        def text() -> str:
            # A no-break space keeps figure and unit together; tests write a plain one.
            return (place.text_content() or "").replace("\N{NO-BREAK SPACE}", " ")

        wait_for(
            lambda: re.search(pattern, text()),
            timeout,
            what=lambda: f"{pattern!r} in #{name}: {text()[-200:]!r}; {self.faults}",
        )
        return text()

    def confirm(self, *, holds: str = "") -> str:
        """Say yes to the question that is open; what it asked."""
        dialog = self.get("fleet-confirm")
        dialog.wait_for()
        asked = dialog.inner_text()
        assert holds in asked
        self.get("fleet-confirm-yes").click()
        return asked

    def toast(self, pattern: str) -> str:
        """The text of a message in the corner, as soon as there is one like that."""
        found = self.page.locator("#toast-container .toast-body").filter(
            has_text=re.compile(pattern)
        )
        found.first.wait_for()
        return found.first.inner_text()

    def screenshot(self, name: str) -> Path:
        """A picture of the whole page, kept for people to look at."""
        path = self._artefacts / f"{name}.png"
        self.page.screenshot(path=path, full_page=True)
        return path

    def expect_fault(self, pattern: str) -> None:
        """A fault that the test brings about itself; the browser notes each refused request."""
        self._expected.append(pattern)

    def unexpected(self) -> list[str]:
        """The faults that no test has announced."""
        return [
            fault
            for fault in self.faults
            if not any(re.search(pattern, fault) for pattern in self._expected)
        ]

    def _dialog(self, dialog: Any) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _console(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.faults.append(f"console: {text}")

    def _request(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "data" and f"{parts.scheme}://{parts.netloc}" != self._origin:
            self.faults.append(f"request: {url}")


class OpenWindow(Protocol):
    """Open an address in a context of its own; the options are Playwright's ``new_context``'s."""

    def __call__(self, url: str, **options: Any) -> Window: ...


# Of a module, not of the run: while Playwright's sync interface is open, this thread has a
# running event loop, and other tests may run one of their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    chromium = shutil.which("chromium")
    if chromium is None:
        missing("Chromium", "apt install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        missing("Playwright", "pip install playwright")
    with sync_playwright() as playwright:
        # Chromium keeps its sandbox from root.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        running = playwright.chromium.launch(executable_path=chromium, args=options)
        yield running
        running.close()


@pytest.fixture
def open_window(browser: Browser, tmp_path: Path) -> Iterator[OpenWindow]:
    """Opens windows that are closed with the test, which fails if a page of theirs did wrong."""
    windows: list[Window] = []
    closing: list[Callable[[], None]] = []
    folder = Path(os.environ.get(ARTEFACTS) or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def open_window(url: str, **options: Any) -> Window:
        parts = urlsplit(url)
        context = browser.new_context(**options)
        closing.append(context.close)
        window = Window(context.new_page(), f"{parts.scheme}://{parts.netloc}", folder)
        windows.append(window)
        window.page.goto(url)
        return window

    yield open_window
    for window in windows:
        # What it has told by now is heard while Playwright is called, and not before.
        window.page.wait_for_timeout(0)
    faults = [fault for window in windows for fault in window.unexpected()]
    for close in closing:
        close()
    assert faults == []
