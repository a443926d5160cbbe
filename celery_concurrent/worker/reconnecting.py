"""How a node waits for a broker that is away: it looks often, and logs at Celery's own pace.

Celery tries after 2 s, 4 s, 6 s and so on up to 30 s, which a node then idles after its broker
came back. Here the tries are a second apart; ``broker_connection_max_retries`` still gives up
when Celery would, and errors are logged when Celery would.

What a broker refuses for a while (see :mod:`celery_concurrent.redis.refusals` and
:mod:`celery_concurrent.rabbitmq.closures`) counts as a lost connection as well.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from celery.utils.log import get_logger
from celery.worker.state import maybe_shutdown

from celery_concurrent.rabbitmq.closures import closed_channels_as_lost_connections
from celery_concurrent.redis.refusals import RefusedError, refusals_as_lost_connections

logger = get_logger(__name__)

#: Seconds between two tries.
INTERVAL = 1.0
#: The same where the broker is there and refuses, at the most: each takes a whole connection.
LONGEST_INTERVAL = 10.0
#: Seconds without a refusal after which the next one is the first again.
CALM = 60.0
#: Seconds between two looks whether the worker is to stop.
LOOK = 0.1


def celerys_intervals() -> Iterator[float]:
    """The seconds that Celery waits between its tries (kombu 5.7, ``ensure_connection``)."""
    interval = 2.0
    while True:
        yield interval
        interval = min(interval + 2.0, 30.0)


def tries_for(max_retries: int | None) -> int | None:
    """How many tries, an interval apart, take as long as Celery's ``max_retries`` do."""
    if not max_retries:  # None and 0 have a meaning of their own
        return max_retries
    patience = sum(islice(celerys_intervals(), max_retries))
    return math.ceil(patience / INTERVAL)


class Pace:
    """Passes errors on when Celery's own next try would have failed.

    Args:
        report: Celery's handler: an error, and the seconds until its next try (0: it goes on
            with an alternate broker at once).
        clock: monotonic seconds.
    """

    def __init__(
        self,
        report: Callable[[Exception, float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._report = report
        self._clock = clock
        self._intervals = celerys_intervals()
        self._due = -math.inf

    def __call__(self, error: Exception, interval: float) -> None:
        """A try has failed."""
        if interval == 0:
            self._report(error, 0)
            return
        now = self._clock()
        if now >= self._due:
            wait = next(self._intervals)
            self._due = now + wait
            self._report(error, wait)


def look_often(connection: Any) -> None:
    """Have a kombu connection's ``ensure_connection`` try every second."""
    ensure = connection.ensure_connection

    def ensure_connection(errback: Any, max_retries: int | None, **options: Any) -> Any:
        return ensure(
            Pace(errback),
            tries_for(max_retries),
            interval_start=INTERVAL,
            interval_step=0,
            interval_max=INTERVAL,
            **options,
        )

    connection.ensure_connection = ensure_connection


class Retrying:
    """Starts a consumer, which runs until its connection is lost; ever later when it is refused.

    Args:
        start: of the consumer's blueprint.
        clock: monotonic seconds.
        sleep: waits for so many.
    """

    def __init__(
        self,
        start: Callable[[Any], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._start = start
        self._clock = clock
        self._sleep = sleep
        self._interval = INTERVAL
        self._refused_at = self._resume_at = -math.inf

    def __call__(self, consumer: Any) -> None:
        """Run it; what is refused for a while is raised as a connection's error."""
        while self._clock() < self._resume_at:
            maybe_shutdown()
            self._sleep(LOOK)
        try:
            with refusals_as_lost_connections(), closed_channels_as_lost_connections():
                self._start(consumer)
        except RefusedError as error:
            self._note(error)
            raise

    def _note(self, error: RefusedError) -> None:
        now = self._clock()
        is_first = now - self._refused_at > CALM
        self._interval = INTERVAL if is_first else min(2 * self._interval, LONGEST_INTERVAL)
        self._refused_at, self._resume_at = now, now + self._interval
        logger.warning("%s: connecting again in %.0f s", error, self._interval)
