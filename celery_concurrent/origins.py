"""Whose code it is that runs, for what is only done in the place of Celery's own."""

from __future__ import annotations

from types import FunctionType, MethodType
from typing import Any


def is_from(function: Any, module: Any) -> bool:
    """Whether the code that runs is the module's, and no wrapper's around it."""
    # No object of another kind, such as wrapt's, which shows the code of what it wraps.
    if type(function) not in (FunctionType, MethodType):
        return False
    return bool(function.__code__.co_filename == module.__file__)
