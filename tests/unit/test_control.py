"""Changing the slots of the node that code runs in, where there is none."""

from __future__ import annotations

import pytest

from celery_concurrent import (
    InputOutsideError,
    get_local_input_concurrency,
    set_local_input_concurrency,
)


def test_outside_of_an_input_there_is_nothing_to_set_or_get() -> None:
    message = r"belongs below an input that runs in a node .*celery control pool_grow"
    with pytest.raises(InputOutsideError, match=message):
        set_local_input_concurrency(3)
    with pytest.raises(InputOutsideError, match=r"get_local_input_concurrency\(\) belongs below"):
        get_local_input_concurrency()
