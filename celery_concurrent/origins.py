"""Whose code it is that runs, for what is only done in the place of Celery's own."""

from __future__ import annotations

from typing import Any


def is_from(function: Any, module: Any) -> bool:
    """Whether the code that runs is the module's, and no wrapper's around it."""
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename == module.__file__
