"""What a test needs from the machine: missing, it skips, or fails where that is asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NoReturn

import pytest

#: Set to 1 (as CI does), a missing service fails the tests that need it.
STRICT = "CELERY_CONCURRENT_REQUIRE_SERVICES"


def missing(service: str, remedy: str, environ: Mapping[str, str] = os.environ) -> NoReturn:
    """Skip the test, or fail it if the run demands every service."""
    message = f"{service} is missing: {remedy}"
    if environ.get(STRICT, "") not in {"", "0"}:
        pytest.fail(f"{message} ({STRICT} is set)", pytrace=False)
    pytest.skip(message)
