"""What a template does once, so that its nodes need not."""

from __future__ import annotations

import subprocess
import sys

_CONNECTS = """
import importlib.metadata

from celery import Celery
from redis.connection import Connection

from celery_concurrent.worker.warmup import import_worker

import_worker(Celery("app", broker="redis://localhost", backend="redis://localhost"))
version = importlib.metadata.version("redis")

def read(_name):
    raise AssertionError("read again")

importlib.metadata.version = read
made = Connection()
# redis-py before 7.2 has no driver_info.
print(getattr(made, "driver_info", made).lib_version == version)
"""


def test_connections_of_a_node_do_not_read_the_version_of_redis_py_again() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CONNECTS], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "True", done.stderr
