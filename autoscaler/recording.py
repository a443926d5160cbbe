"""``celery fleet record``: a fleet's arrivals and run times, from Celery's task events, as a trace.

Publishers tell when they send an input (``task_send_sent_event``), nodes when they have fetched,
started and ended it (``-E``, or ``worker_send_task_events``). The main thread does it all; a signal
and the timer only say that it is to stop.
"""

from __future__ import annotations

import json
import signal
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TextIO

import click
from celery.utils.time import maybe_iso8601
from kombu.exceptions import OperationalError

from celery_concurrent.autoscaler.ending import when_told
from celery_concurrent.autoscaler.plan import choose
from celery_concurrent.brokers import consume, hear, listening, reach
from celery_concurrent.errors import ConcurrencyError, ConfigurationError
from celery_concurrent.fleets import Fleet, fleets_of

#: Seconds between attempts to connect again.
RETRY_AFTER: Final = 1.0

_ENDS: Final = frozenset(
    {"task-succeeded", "task-failed", "task-retried", "task-revoked", "task-rejected"}
)


@dataclass(slots=True, kw_only=True)
class _Input:
    arrived: float
    task: str
    started: float | None = None


class Recorder:
    """Puts together what is told of each input.

    An input has the same id in each of its tries, and the next try is sent before the end of the
    one before is told: so there is a queue of tries by id, and the first one is the one that runs.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._open: dict[str, deque[_Input]] = defaultdict(deque)
        self.ended = 0
        #: Whether a publisher, or a node, has told anything.
        self.sent = self.ran = False

    @property
    def left(self) -> int:
        """Inputs that have not ended."""
        return sum(map(len, self._open.values()))

    def note(self, event: dict[str, Any]) -> dict[str, Any] | None:
        """The line of the input that has ended by this event and that ran."""
        kind, tries = str(event["type"]), self._open.get(event["uuid"])
        if kind == "task-sent":
            self._begin(event, again=True)
        elif kind == "task-received":
            # Known by its sending; or it comes once more from a node that was lost.
            self._begin(event, again=False)
        elif kind == "task-started" and tries:
            tries[0].started = event["timestamp"]
        elif kind in _ENDS and tries:
            return self._end(event, tries)
        return None

    def _begin(self, event: dict[str, Any], *, again: bool) -> None:
        queue = event.get("queue") or self._fleet.queue
        if event.get("name") not in self._fleet.tasks or queue != self._fleet.queue:
            return
        self.sent, self.ran = self.sent or again, self.ran or not again
        tries = self._open[event["uuid"]]
        if again or not tries:
            # Until its time has come it is no demand.
            eta = maybe_iso8601(event.get("eta"))
            due = event["timestamp"] if eta is None else max(event["timestamp"], eta.timestamp())
            tries.append(_Input(arrived=due, task=event["name"]))

    def _end(self, event: dict[str, Any], tries: deque[_Input]) -> dict[str, Any] | None:
        first = tries.popleft()
        if not tries:
            del self._open[event["uuid"]]
        seconds = event.get("runtime")
        if seconds is None and first.started is not None:
            seconds = event["timestamp"] - first.started
        if seconds is None:  # revoked before it ran
            return None
        self.ended += 1
        return {
            "arrival_s": round(first.arrived, 6),
            "seconds": round(max(0.0, seconds), 6),
            "task": first.task,
        }


def run(app: Any, queue: str | None, path: Path, seconds: float | None) -> None:
    """Record until a signal, or for so many seconds; say what came of it on stderr.

    Raises:
        ConcurrencyError: the app, the file or the broker is not as it must be.
    """
    app.loader.import_default_modules()
    fleet = choose(fleets_of(app), queue)
    recorder = Recorder(fleet)
    with _created(path) as file:
        recording = _Recording(app, recorder, file, seconds)
        recording.run(lambda: _say(f"recording {fleet.queue} into {path}, until Ctrl-C"))
    where = f"in {path}" if recorder.ended else "and no file"
    _say(f"recorded {recorder.ended:,} inputs {where}")
    for text in _remarks(recorder):
        _say(text)


def _remarks(recorder: Recorder) -> Iterator[str]:
    if recorder.left:
        yield f"{recorder.left:,} inputs had not ended, and are left out"
    if not recorder.ran:
        yield (
            "no node told of an input: start nodes with -E, or set worker_send_task_events = True, "
            "in a fleet, too"
        )
    elif not recorder.sent:
        yield (
            "inputs arrive in it when nodes fetched them: set task_send_sent_event = True where "
            "they are published, for when they were sent"
        )


@contextmanager
def _created(path: Path) -> Iterator[TextIO]:
    """A file that was not there, each line of which is written at once; gone if it stays empty."""
    try:
        file = path.open("x", buffering=1)
    except FileExistsError as error:
        raise ConfigurationError(f"{path} is there already: name another file") from error
    except OSError as error:
        raise ConfigurationError(f"cannot write to {path}: {error}") from error
    try:
        with file:
            yield file
    except OSError as error:
        raise ConcurrencyError(f"cannot write to {path} any more: {error}") from error
    finally:
        if not path.stat().st_size:
            path.unlink()


class _Recording:
    """Listens to the broker's events, again and again when it is lost, until it is told to stop."""

    def __init__(self, app: Any, recorder: Recorder, file: TextIO, seconds: float | None) -> None:
        self._app = app
        self._recorder = recorder
        self._file = file
        self._stopping = threading.Event()
        self._timer = threading.Timer(0.0 if seconds is None else seconds, self.stop)
        self._timer.daemon = True
        self._is_timed = seconds is not None
        self._failed: OSError | None = None
        self._listened = False

    def run(self, ready: Callable[[], None]) -> None:
        """Until it is to stop; ``ready`` is called when it listens for the first time.

        Raises:
            ConcurrencyError: there is no broker from the start.
            OSError: the file takes no more.
        """
        when_told(self._told)
        while not self._stopping.is_set():
            self._listen(ready)
        self._timer.cancel()
        if self._failed is not None:
            raise self._failed

    def stop(self) -> None:
        """From any thread; counts within a second."""
        self._stopping.set()

    def _told(self, number: int, _frame: Any) -> None:
        # The next one ends the process at once.
        signal.signal(number, signal.SIG_DFL)
        self.stop()

    def _listen(self, ready: Callable[[], None]) -> None:
        connection = listening(self._app)
        try:
            with connection:
                reach(connection)
                self._receive(connection)
                self._tell_ready(ready)
                hear(connection, self._stopping)
        except (OperationalError, *connection.connection_errors) as error:
            if not self._listened:
                raise ConcurrencyError(f"the broker does not answer: {error}") from error
            _say(f"the broker is away, and what happens is not recorded: {error}")
            self._stopping.wait(RETRY_AFTER)

    def _receive(self, connection: Any) -> None:
        receiver = self._app.events.Receiver(
            connection, handlers={"*": self._note}, routing_key="task.#"
        )
        # celery 5.6 and 5.7: or times of publishers in other zones would be hours apart.
        receiver.event_from_message = partial(receiver.event_from_message, localize=False)
        consume(receiver)

    def _tell_ready(self, ready: Callable[[], None]) -> None:
        if not self._listened:
            ready()
            if self._is_timed:
                self._timer.start()
        self._listened = True

    def _note(self, event: dict[str, Any]) -> None:
        line = self._recorder.note(event)
        if line is None or self._failed is not None:
            return
        try:
            self._file.write(json.dumps(line) + "\n")
        except OSError as error:
            self._failed = error
            self.stop()


def _say(text: str) -> None:
    # A terminal that was closed hears nothing; the trace is whole.
    with suppress(OSError):
        click.echo(text, err=True)
