"""Which input am I? Ids that follow an input into child tasks and helper threads."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import ParamSpec, Protocol, TypeVar

from celery._state import _task_stack

P = ParamSpec("P")
R = TypeVar("R")


class Running(Protocol):
    """An input in a node, as code below it needs to know it."""

    id: str
    root_id: str


#: Set once per input, inherited by what it starts; in a node only.
CURRENT_INPUT: ContextVar[Running | None] = ContextVar("celery_concurrent_input", default=None)


def current_input_id() -> str | None:
    """The task id of the input that this code runs for; None outside of any input.

    Works below an input everywhere: in child asyncio tasks and ``asyncio.to_thread`` too.
    """
    running = CURRENT_INPUT.get()
    if running is not None:
        return running.id
    task = _task_stack.top  # other pools, apply() and task_always_eager
    return None if task is None else task.request.id


def current_function_call_id() -> str | None:
    """The root id of the input that this code runs for: the first call of its workflow."""
    running = CURRENT_INPUT.get()
    if running is not None:
        return running.root_id
    task = _task_stack.top
    return None if task is None else task.request.root_id or task.request.id


def carried(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function so that another thread runs it as if in this place of the input.

    Celery's stacks are keyed by thread and greenlet (``celery.utils.threads``): they are
    pushed again around the call, so that ``self.request``, ``current_task`` and the parent of
    what is published are those of the caller. ContextVars come along too.
    """
    context = copy_context()
    tasks = [(task, list(task.request_stack.stack)) for task in _task_stack.stack]

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        for task, requests in tasks:
            _task_stack.push(task)
            for request in requests:
                task.request_stack.push(request)
        try:
            return function(*args, **kwargs)
        finally:
            for task, requests in reversed(tasks):
                for _ in requests:
                    task.request_stack.pop()
                _task_stack.pop()

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return context.run(run, *args, **kwargs)

    return call
