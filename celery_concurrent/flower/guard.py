"""Who may change something: pure rules, of headers and options.

Flower takes changes without a token where no login is set up, and where basic auth is. A
browser sends a basic login with every request, whoever's page made it, so here whatever comes
from a browser must show that a page of this Flower has sent it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

#: One of these is in every POST that a page in a browser can send.
_BROWSERS: Final = ("Cookie", "Origin", "Referer", "Sec-Fetch-Site")


def is_from_browser(headers: Mapping[str, str]) -> bool:
    """Whether a browser may have sent it."""
    return any(name in headers for name in _BROWSERS)


def why_foreign(headers: Mapping[str, str], host: str) -> str | None:
    """Why a browser's request is from another origin's page; None if it is from our own.

    Args:
        headers: of the request.
        host: that it was sent to, with the port.
    """
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        # A browser's own word, that no page can change.
        return None if site == "same-origin" else f"Sec-Fetch-Site is {site!r}"
    for name in ("Origin", "Referer"):
        told = headers.get(name)
        if told is not None:
            return None if _host_of(told) == host.lower() else f"{name} is {told!r}"
    return None


def why_no_controls(options: Any, *, open_api: bool) -> str | None:
    """Why no change is taken, in a sentence with the remedy; None where changes are.

    Args:
        options: Flower's.
        open_api: whether FLOWER_UNAUTHENTICATED_API is set.
    """
    if options.read_only:
        return "Flower runs with --read-only: start it without, to change something here"
    if not (options.basic_auth or options.auth) and not open_api:
        return (
            "changes need a login: start Flower with --basic-auth=NAME:PASSWORD or --auth, or, "
            "where everybody may change everything, with FLOWER_UNAUTHENTICATED_API=1 in its "
            "environment"
        )
    return None


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
