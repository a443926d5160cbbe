"""What counts as Celery's own code."""

from __future__ import annotations

import functools

from celery import Celery
from celery.app import task as celery_task

from celery_concurrent.origins import is_from


class Proxy:
    """Shows the code of what it wraps, as wrapt's proxies do."""

    def __init__(self, wrapped: object) -> None:
        self.__code__ = wrapped.__code__  # type: ignore[attr-defined]  # a function's


def test_the_modules_own_functions_and_methods_are() -> None:
    task = Celery(set_as_current=False).Task()
    assert is_from(celery_task.Task.apply_async, celery_task)
    assert is_from(task.apply_async, celery_task)


def test_wrappers_of_them_are_not() -> None:
    own = celery_task.Task.apply_async

    @functools.wraps(own)
    def wrapper(*args: object) -> object:
        return own(*args)

    for other in (wrapper, functools.partial(own), Proxy(own), len, None):
        assert not is_from(other, celery_task)
