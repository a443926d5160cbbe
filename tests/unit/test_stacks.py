"""Quick stacks are Celery's stacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery.utils.threads import LocalStack, _LocalStack, release_local
from greenlet import greenlet
from hypothesis import given
from hypothesis import strategies as st

from celery_concurrent.pool.stacks import QuickStack, quicken, restore

pytestmark = pytest.mark.skipif(LocalStack is not _LocalStack, reason="USE_FAST_LOCALS is set")

DOINGS: dict[str, Callable[[Any, int], Any]] = {
    "push": lambda stack, value: list(stack.push(value)),
    "pop": lambda stack, _: stack.pop(),
    "top": lambda stack, _: stack.top,
    "stack": lambda stack, _: list(stack.stack),
    "len": lambda stack, _: len(stack),
    "release": lambda stack, _: release_local(stack),
}


def in_greenlets(stack: Any, steps: list[tuple[int, str, int]]) -> list[Any]:
    """Do each step in the greenlet of its number; what each returned."""

    def body() -> None:
        doing, value = main.switch(None)
        while True:
            doing, value = main.switch(DOINGS[doing](stack, value))

    main = greenlet.getcurrent()
    greenlets = [greenlet(body) for _ in range(3)]
    for each in greenlets:
        each.switch()
    return [greenlets[number].switch((doing, value)) for number, doing, value in steps]


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(list(DOINGS)), st.integers(0, 9)), max_size=30
    )
)
def test_each_greenlet_finds_what_it_would_in_celerys(steps: list[tuple[int, str, int]]) -> None:
    theirs, quick = LocalStack(), LocalStack()
    quicken([quick])
    assert in_greenlets(quick, steps) == in_greenlets(theirs, steps)


def test_what_is_on_a_stack_stays_on_it() -> None:
    stack = LocalStack()
    stack.push(1)
    quicken([stack, stack])
    assert isinstance(stack, QuickStack)
    assert stack.top == 1
    push, pop = stack.push, stack.pop
    push(2)
    restore([stack, stack])
    assert type(stack) is _LocalStack
    assert stack.stack == [1, 2]
    # A thread that a node leaves behind has these.
    assert pop() == 2


def test_a_stack_that_others_have_replaced_is_left_to_them() -> None:
    other = object()
    quicken([other])
    restore([other])


def test_a_greenlet_that_has_popped_all_is_forgotten() -> None:
    stack = LocalStack()
    quicken([stack])
    stack.push(1)
    stack.pop()
    assert stack._stacks == {}
