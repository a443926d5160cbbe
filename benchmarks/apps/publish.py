"""A client that publishes: ``python -m benchmarks.apps.publish apply_async|task_map COUNT``.

Prints the seconds and the processor seconds that it took, connecting left out.
"""

from __future__ import annotations

import json
import sys
import time

from benchmarks.apps.inputs import settings
from benchmarks.apps.plain import app
from celery_concurrent import task_map

_WARM_UPS = 10

task = app.tasks[settings.task]


def publish(way: str, count: int) -> None:
    """Publish so many inputs, each with its number."""
    if way == "task_map":
        task_map(task, range(count)).publish()
        return
    for number in range(count):
        task.apply_async((number,))


if __name__ == "__main__":
    publish(sys.argv[1], _WARM_UPS)
    begun, cpu = time.monotonic(), time.process_time()
    publish(sys.argv[1], int(sys.argv[2]))
    print(json.dumps({"seconds": time.monotonic() - begun, "cpu": time.process_time() - cpu}))
