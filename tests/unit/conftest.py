"""An app that needs no service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, _state
from hypothesis import settings

from tests.services.project import apart

# The same examples in each run, so that a run tells of the change and not of luck; and no
# deadlines, for a busy machine is no failure.
settings.register_profile("unit", derandomize=True, deadline=None)
settings.load_profile("unit")


@pytest.fixture
def app() -> Iterator[Any]:
    """An app of the test's own: broker and results in memory, not made the current one."""
    with apart():
        made = Celery("unit", broker="memory://", backend="cache+memory://", set_as_current=False)
        yield made
        made.close()
    # Eager inputs deny .get() while they run, by a flag that threads share: they may leave it.
    _state._set_task_join_will_block(False)


@pytest.fixture
def eager_app(app: Any) -> Any:
    """Its tasks run where they are called."""
    app.conf.task_always_eager = True
    return app
