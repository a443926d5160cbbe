"""What every test has: the services' fixtures."""

from __future__ import annotations

import pytest

from tests.services.project import IS_UNBATCHED

pytest_plugins = ["tests.services.browser", "tests.services.fixtures", "tests.services.flower"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if IS_UNBATCHED and item.get_closest_marker("batching"):
        pytest.skip("kombu's own way does not promise it")
