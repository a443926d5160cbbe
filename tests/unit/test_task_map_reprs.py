"""Arguments as logs show them are, to the letter, Celery's."""

from __future__ import annotations

from typing import Any

from celery.utils.saferepr import saferepr
from hypothesis import example, given
from hypothesis import strategies as st

from celery_concurrent.bulk.reprs import args_repr

PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(
    PLAIN | st.binary() | st.decimals(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
)


@given(
    st.lists(PLAIN).map(tuple) | st.lists(VALUES).map(tuple),
    st.integers(min_value=1, max_value=60),
    st.integers(min_value=0, max_value=4),
)
@example(("it's",), 1_024, 3)
@example(("x" * 57,), 60, 3)
@example(("x" * 56,), 60, 3)
@example(("x" * 55,), 60, 3)
@example((), 1, 3)
def test_equals_saferepr(args: tuple[Any, ...], longest: int, levels: int) -> None:
    expected = saferepr(args, longest, maxlevels=levels)
    assert args_repr(args, longest=longest, levels=levels) == expected
