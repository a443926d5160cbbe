"""How the Fleet page comes into ``celery -A app flower``.

Every ``celery`` command imports this module, so it looks at the command line before it imports
anything. ``flower.command.Flower`` is looked up when the command runs (2.2): what stands there
by then makes the application.

What always holds: Flower starts. A version that is not known, or a page that cannot be set up,
costs one warning and the page.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

logger = logging.getLogger(__name__)

#: Versions of Flower whose inside is known; (major, minor).
KNOWN: Final = ((2, 2),)


def install(words: Sequence[str] | None = None) -> None:
    """Have ``celery flower`` serve the Fleet page; doing it twice changes nothing.

    Args:
        words: the command line; ``sys.argv`` unless given.
    """
    if "flower" not in (sys.argv if words is None else words):
        return
    try:
        from flower import command
    except Exception:
        # Not installed, or broken: Celery, which loads the command itself, tells which.
        return
    plain = getattr(command, "Flower", None)
    if plain is None:
        _warn_of_version()
    elif not isinstance(plain, _Dressed):
        command.Flower = _Dressed(plain)


class _Dressed:
    """Makes an application as ``plain`` does, and gives it the page."""

    def __init__(self, plain: Callable[..., Any]) -> None:
        self._plain = plain

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        # Made first: what fails in Flower itself fails as it does without this package.
        app = self._plain(*arguments, **options)
        if not is_known(_version()):
            _warn_of_version()
            return app
        try:
            from celery_concurrent.flower.app import dress

            dress(app)
        except Exception as error:
            logger.warning(
                "the Fleet page could not be set up, so Flower runs without it (%s: %s). Please "
                "report this with the lines below",
                type(error).__name__,
                error,
                exc_info=True,
            )
        return app


def is_known(version: str) -> bool:
    """Whether the page was made for this version of Flower.

    >>> is_known("2.2.0"), is_known("2.3.0"), is_known("whatever")
    (True, False, False)
    """
    return any(version.startswith(f"{major}.{minor}.") for major, minor in KNOWN)


def _version() -> str:
    import flower

    return str(getattr(flower, "__version__", "unknown"))


def _warn_of_version() -> None:
    known = ", ".join(f"{major}.{minor}" for major, minor in KNOWN)
    logger.warning(
        "the Fleet page is left out: it knows Flower %s, and this is Flower %s. Install one that "
        'is known (pip install "flower==%s.*"), or a newer celery-concurrent',
        known,
        _version(),
        known.rpartition(", ")[2],
    )
