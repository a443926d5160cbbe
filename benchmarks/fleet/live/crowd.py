"""Many nodes' worth of ``concurrency-node`` events, at the rate at which nodes send them.

``python -m benchmarks.fleet.live.crowd NODES`` publishes until it is ended.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from benchmarks.apps.fleet import app, settings
from celery_concurrent.pool.slots import Figures
from celery_concurrent.pool.status import Status
from celery_concurrent.pool.timing import Timing
from celery_concurrent.worker.telling import LONGEST, TYPE, event_fields, process_fields


def node_name(number: int) -> str:
    return f"node-{number}@benchmark"


def queue_of(number: int) -> str:
    """The fleets are of the same size, or nearly."""
    return settings.queue(number % settings.queues)


def fields_of(number: int, status: Status, finished: int) -> dict[str, Any]:
    """The event of a node that is full, and finishes inputs all the time."""
    full = settings.max_inputs
    figures = Figures(slots=full, target=full, running=full, reserved=0)
    return event_fields(
        status=status,
        node=figures,
        groups={queue_of(number): figures},
        queues=[queue_of(number)],
        reserved=0,
        scheduled=0,
        arrived=finished + full,
        finished=finished,
        device=None,
        timing=Timing().fields(),
        process=process_fields(),
    )


def main(nodes: int) -> None:
    """Each node once in :data:`LONGEST` seconds, one after the other in that time."""
    with app.connection_for_write() as connection:
        channel = connection.channel()
        senders = [
            app.events.Dispatcher(connection, channel=channel, hostname=node_name(number))
            for number in range(nodes)
        ]
        status = Status()
        status.enters("ready")
        due, turn = time.monotonic(), 0
        while True:
            for number, sender in enumerate(senders):
                sender.send(TYPE, **fields_of(number, status, turn))
                due += LONGEST / nodes
                time.sleep(max(0.0, due - time.monotonic()))
            turn += 1


if __name__ == "__main__":
    main(int(sys.argv[1]))
