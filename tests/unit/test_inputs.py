"""An input ends once, and only while its function runs; no exception of ours goes astray."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import pytest
from celery.app.task import Context
from celery.utils.threads import LocalStack

from celery_concurrent import InputCancellation
from celery_concurrent.context import CURRENT_INPUT
from celery_concurrent.pool.inputs import Input, guarded
from tests.services.inputs import make_input

#: Celery's stack of the task's requests.
REQUESTS = LocalStack()


class SoftLimitError(Exception):
    """Stands for Celery's soft time limit."""


class Recorder:
    """An interrupter that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def interrupt(self, error: type[BaseException]) -> None:
        self.told.append(error)

    def clear(self) -> None:
        self.told.append("clear")


def made(interrupter: Any = None) -> Input:
    input = make_input("id", None)
    input.interrupter = interrupter
    return input


def run_as(input: Input, function: Callable[[], Any]) -> Any:
    """Call a guarded function as the tracer of this input does."""

    def call() -> Any:
        CURRENT_INPUT.set(input)
        REQUESTS.push(Context(id=input.id, called_directly=False))
        try:
            return guarded(function, REQUESTS)()
        finally:
            REQUESTS.pop()

    return copy_context().run(call)


def test_ended_before_it_enters_its_function_never_runs() -> None:
    recorder = Recorder()
    input, told = made(recorder), []
    assert input.end("revoked")
    with pytest.raises(InputCancellation, match="revoked"):
        run_as(input, lambda: told.append("ran"))
    assert told == []
    assert InputCancellation not in recorder.told
    assert input.left


def test_ended_while_it_runs_is_interrupted_once() -> None:
    recorder = Recorder()
    input = made(recorder)

    def run() -> str:
        assert input.end("first")
        assert not input.end("second")
        return "too late"

    with pytest.raises(InputCancellation, match="first"):
        run_as(input, run)
    assert recorder.told == [InputCancellation, "clear"]
    assert input.ended == "first"


def test_ended_after_it_left_stays_what_it_is() -> None:
    recorder = Recorder()
    input = made(recorder)
    assert run_as(input, lambda: "done") == "done"
    assert not input.end("too late")
    assert input.ended is None
    assert recorder.told == ["clear"]


def test_an_error_of_the_function_comes_through_and_leaves() -> None:
    input = made(Recorder())

    def fail() -> None:
        raise KeyError("own")

    with pytest.raises(KeyError, match="own"):
        run_as(input, fail)
    assert input.left
    assert not input.end("too late")


def test_a_soft_limit_warns_only_while_the_function_runs() -> None:
    recorder = Recorder()
    input = made(recorder)
    assert not input.warn(SoftLimitError)

    def run() -> None:
        assert input.warn(SoftLimitError)
        assert input.soft_pending

    run_as(input, run)
    assert not input.warn(SoftLimitError)
    assert recorder.told == [SoftLimitError, "clear"]


def test_a_hard_limit_follows_a_soft_one_and_no_soft_one_follows_it() -> None:
    recorder = Recorder()
    input = made(recorder)

    def run() -> None:
        assert input.warn(SoftLimitError)
        assert input.end("hard")
        assert not input.warn(SoftLimitError)

    with pytest.raises(InputCancellation, match="hard"):
        run_as(input, run)
    assert recorder.told == [SoftLimitError, InputCancellation, "clear"]


def test_finished_without_its_function_it_cannot_be_ended() -> None:
    input = made(Recorder())
    input.finished = True  # its tracer failed before the function, by a custom base for one
    assert not input.end("too late")


def test_only_the_outermost_call_is_guarded() -> None:
    recorder = Recorder()
    input = made(recorder)
    inner = guarded(lambda: "inner", REQUESTS)
    assert run_as(input, inner) == "inner"
    assert run_as(made(Recorder()), lambda: (inner(), input.left)) == ("inner", True)
    assert recorder.told == ["clear"]


def test_guarding_twice_is_guarding_once() -> None:
    guard = guarded(lambda: None, LocalStack())
    assert guarded(guard, LocalStack()) is guard


def test_outside_of_a_node_the_guard_is_a_plain_call() -> None:
    assert guarded(lambda x: x + 1, LocalStack())(1) == 2


@pytest.mark.parametrize("fields", [{"id": "other", "called_directly": False}, {"id": "id"}])
def test_a_task_that_is_called_before_the_inputs_own_is_not_it(fields: dict[str, Any]) -> None:
    """As by ``before_start``: directly, or with ``apply()``."""
    input, requests = made(Recorder()), LocalStack()
    requests.push(Context(**fields))

    def call() -> Any:
        CURRENT_INPUT.set(input)
        return guarded(lambda: "other", requests)()

    assert copy_context().run(call) == "other"
    assert (input.entered, input.left) == (False, False)
    assert run_as(input, lambda: (input.entered, input.left)) == (True, False)
