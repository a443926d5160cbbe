"""Arguments as logs and events show them: exactly as Celery does, for most calls at once."""

from __future__ import annotations

from typing import Any

from celery.utils.saferepr import saferepr

#: Types whose values Celery shows by ``str``.
_PLAIN = frozenset({int, float, bool, type(None)})
#: Below so many levels of nesting a tuple of values is shown in full.
_FLAT = 2


def args_repr(args: tuple[Any, ...], *, longest: int, levels: int) -> str:
    """``saferepr(args, longest, maxlevels=levels)`` of Celery, quicker for a few plain values."""
    parts = []
    for value in args:
        kind = type(value)
        if kind is str:
            escaped = value.replace("'", "\\'")
            parts.append(f"'{escaped}'")
        elif kind in _PLAIN:
            parts.append(str(value))
        else:
            break
    else:
        text = f"({parts[0]},)" if len(parts) == 1 else f"({', '.join(parts)})"
        if len(text) < longest and levels >= _FLAT:
            return text
    shown: str = saferepr(args, longest, maxlevels=levels)
    return shown
