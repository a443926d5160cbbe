"""What every test has: the services' fixtures."""

from __future__ import annotations

pytest_plugins = ["tests.services.fixtures"]
