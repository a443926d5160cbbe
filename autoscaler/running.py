"""An autoscaler's process: what it is made of, and how it ends.

Order of the end, on SIGINT, SIGTERM or SIGHUP: nodes drain while the loop starts no other (or run
on with ``leave_nodes``), mailbox, events and the lease are closed; who asks is answered while nodes
drain, and metrics are served to the last. A second signal ends the nodes at once.
"""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from celery.utils.log import get_logger

from celery_concurrent.autoscaler import announcing
from celery_concurrent.autoscaler.announcing import Announcer
from celery_concurrent.autoscaler.backlog import Backlog
from celery_concurrent.autoscaler.desk import Desk
from celery_concurrent.autoscaler.devices import PatientSource
from celery_concurrent.autoscaler.ending import when_told
from celery_concurrent.autoscaler.listening import Listener
from celery_concurrent.autoscaler.local.commands import Command, require_passable
from celery_concurrent.autoscaler.local.folder import FolderInUseError, broker_of, state_folder
from celery_concurrent.autoscaler.local.processes import allow_descriptors
from celery_concurrent.autoscaler.local.provider import LocalProvider
from celery_concurrent.autoscaler.loop import Autoscaler
from celery_concurrent.autoscaler.mailbox import Respondent
from celery_concurrent.autoscaler.overrides import Overrides, applied
from celery_concurrent.autoscaler.pins import DevicePins
from celery_concurrent.autoscaler.reports import Reports
from celery_concurrent.board import Board
from celery_concurrent.errors import ConfigurationError
from celery_concurrent.fleets import Fleet, findings, fleets_of
from celery_concurrent.gpu.device import DeviceSource
from celery_concurrent.gpu.simulated import Simulated
from celery_concurrent.metrics.serving import Metrics
from celery_concurrent.outlets import DispatcherOutlet
from celery_concurrent.redis.reaping import Reaper

logger = get_logger(__name__)

#: Seconds between two looks whether another autoscaler has ended.
LOOK_AGAIN = 0.5

#: In the state folder.
_OVERRIDES = "overrides.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says.

    Args:
        knobs: for all fleets; None for those that are not given.
        simulate_gpus: how many devices to pretend, None for the real ones.
        drain_timeout: seconds that a node may drain before it is ended.
        fresh: start nodes as processes of their own, unforked.
        leave_nodes: let nodes run on at the end.
        loglevel: of the autoscaler and its nodes.
        metrics_port: where Prometheus finds metrics, None for none, 0 for any port that is free.
        metrics_address: which one of this host's.
    """

    knobs: Mapping[str, Any]
    simulate_gpus: int | None = None
    drain_timeout: float = 600.0
    fresh: bool = False
    leave_nodes: bool = False
    loglevel: str = "INFO"
    metrics_port: int | None = None
    metrics_address: str = "127.0.0.1"


def run(app: Any, name: str, options: Options) -> None:
    """Keep the app's fleets until a signal.

    Args:
        app: the Celery app.
        name: what ``celery -A`` takes for it.
        options: as above.

    Raises:
        ConcurrencyError: it cannot start; nothing was started.
    """
    # In a worker's order: logging shows Celery's deprecations, and a worker has its tasks by then.
    app.loader.import_default_modules()
    app.finalize()
    app.log.setup(loglevel=options.loglevel)
    fleets = fleets_of(app, options=options.knobs)
    if not fleets:
        raise ConfigurationError(
            f"app {name!r} has no concurrent task, so there is no fleet: add "
            "@concurrent(max_inputs=...) to a task"
        )
    for queue in fleets:
        require_passable(queue)
    for finding in findings(app):
        logger.warning("%s", finding.text)
    allow_descriptors()
    source = _devices(options.simulate_gpus)
    if options.simulate_gpus is None:
        # As they are now: a process that has to wait for another one says at once what is wrong.
        overrides = Overrides(state_folder(name, broker_of(app)) / _OVERRIDES)
        _require_devices(applied(fleets, overrides)[0], source)
    _Process(app, name, options, fleets, source).run()


def drain_left(app: Any, name: str) -> int:
    """Have the nodes that an autoscaler of this app has left behind leave; returns how many.

    Args:
        app: the Celery app.
        name: what ``celery -A`` takes for it.

    Raises:
        ProviderError: an autoscaler runs.
    """
    allow_descriptors()
    folder = state_folder(name, broker_of(app))
    provider = LocalProvider(Command(app=name), folder=folder, fork=False)
    count = len(provider.list())
    provider.close(stop_all=True)
    return count


def _devices(simulated: int | None) -> DeviceSource:
    """Where devices are read from, as soon as a fleet wants any."""
    if simulated is not None:
        return Simulated.of(simulated)
    from celery_concurrent.gpu import nvml

    return nvml


def _require_devices(fleets: Mapping[str, Fleet], source: DeviceSource) -> None:
    """See to it that there are some where a fleet wants them.

    Raises:
        ConfigurationError: there are none.
    """
    wanting = [queue for queue, fleet in fleets.items() if fleet.knobs.gpus]
    if not wanting:
        return
    inventory = source.inventory()
    if not inventory.devices:
        raise ConfigurationError(
            f"fleet {wanting[0]!r} wants gpus={fleets[wanting[0]].knobs.gpus}, and this host has "
            f"none: {inventory.absence or 'the driver knows of none'}. Set gpus=0, or try it "
            "with --simulate-gpus N"
        )


class _Process:
    """A running autoscaler."""

    def __init__(
        self,
        app: Any,
        name: str,
        options: Options,
        fleets: Mapping[str, Fleet],
        source: DeviceSource,
    ) -> None:
        self._options = options
        self._signals = 0
        self._loop: Autoscaler | None = None
        self._metrics = _metrics(options, fleets)
        folder = state_folder(name, broker_of(app))
        self._pins = DevicePins(PatientSource(source), owner=str(folder))
        self._provider = _hold(
            lambda: LocalProvider(
                Command(app=name, loglevel=options.loglevel),
                folder=folder,
                drain_timeout=options.drain_timeout,
                fork=not options.fresh,
                handed=self._pins.descriptors,
                on_change=self._wake,
            )
        )
        # Now that nobody else writes them.
        overrides = Overrides(folder / _OVERRIDES)
        kept, outgrown = applied(fleets, overrides)
        for told in outgrown:
            logger.warning("%s", told)
        self._backlog = Backlog(app)
        # Puts back what nodes had that died, also when no other node is left to do it.
        self._reaper = Reaper(app, "autoscaler")
        reports = Reports()
        loop = self._loop = Autoscaler(
            kept,
            provider=self._provider,
            backlog=self._backlog,
            reports=reports,
            pins=self._pins,
        )
        for queue in overrides.drained & loop.keepers.keys():
            loop.keepers[queue].drained = True
        self._board = Board()
        self._listener = Listener(app, reports, loop.heard, self._note)
        desk = Desk(loop, overrides, self._board, time.monotonic)
        self._respondent = Respondent(app, desk.handlers())
        self._announcer = Announcer(
            desk, lambda: DispatcherOutlet(app, announcing.HOSTNAME), self._note
        )

    def run(self) -> None:
        """Until a signal."""
        assert self._loop is not None
        when_told(self._told)
        self._listener.start()
        self._respondent.start()
        self._announcer.start()
        self._reaper.start()
        logger.info("autoscaler keeps %s", ", ".join(sorted(self._loop.keepers)))
        # A full collection of what was imported takes 30 ms, which a decision would wait for.
        gc.collect()
        gc.freeze()
        try:
            self._loop.run()
        except Exception:
            # Before the nodes drain, which may take long.
            logger.exception("the autoscaler cannot go on, and ends")
            raise
        finally:
            self._end()

    def _note(self, event: Mapping[str, Any]) -> None:
        self._board.note(event)
        if self._metrics is not None:
            self._metrics.note(event)

    def _wake(self) -> None:
        # The provider looks after adopted nodes before there is a loop to wake.
        if self._loop is not None:
            self._loop.wake()

    def _told(self, _number: int, _frame: Any) -> None:
        self._signals += 1
        if self._loop is not None:
            self._loop.stop()
        if self._signals > 1 and not self._options.leave_nodes:
            logger.warning("ending all nodes at once")
            for process in self._provider.list():
                self._provider.stop(process.name)

    def _end(self) -> None:
        if not self._options.leave_nodes:
            self._drain_all()
        self._provider.close(stop_all=not self._options.leave_nodes)
        self._respondent.close()
        self._announcer.close()
        self._listener.close()
        self._reaper.close()
        self._backlog.close()
        self._pins.close()
        if self._metrics is not None:
            self._metrics.close()

    def _drain_all(self) -> None:
        assert self._loop is not None
        living = len(self._provider.list())
        if living:
            logger.info(
                "draining %d nodes; their inputs may take up to %.0f s. A second signal ends "
                "them at once, and their inputs go back to the broker",
                living,
                self._options.drain_timeout,
            )
        try:
            self._loop.end()
        except Exception:
            logger.exception("nodes drain, and nobody looks at their fleets any more")


def _metrics(options: Options, queues: Collection[str]) -> Metrics | None:
    """Made before all else: where it cannot listen, nothing is started."""
    if options.metrics_port is None:
        return None
    metrics = Metrics(options.metrics_address, options.metrics_port, socket.gethostname(), queues)
    logger.info("metrics are at %s", metrics.url)
    return metrics


def _hold(make: Callable[[], LocalProvider]) -> LocalProvider:
    """The provider, as soon as no other autoscaler has its nodes: this one takes over then."""
    told = False
    while True:
        try:
            return make()
        except FolderInUseError as error:
            if not told:
                logger.warning("%s; waiting to take over, until Ctrl-C", error)
            told = True
            time.sleep(LOOK_AGAIN)
