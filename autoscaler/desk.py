"""What a running autoscaler answers: its status, and changes to its fleets."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from celery_concurrent.autoscaler.announcing import HOSTNAME
from celery_concurrent.autoscaler.keeper import Keeper
from celery_concurrent.autoscaler.loop import Autoscaler
from celery_concurrent.autoscaler.overrides import Overrides, changed
from celery_concurrent.autoscaler.status import device_status, fleet_status
from celery_concurrent.board import Board
from celery_concurrent.board.words import FLEET
from celery_concurrent.errors import ConfigurationError

#: Seconds that an answer may take.
WITHIN = 5.0


class Desk:
    """Handles what comes by the mailbox; each is carried out on the loop's thread.

    Args:
        autoscaler: whose.
        overrides: kept, before a change is answered.
        board: has heard the nodes.
        clock: the loop's.
    """

    def __init__(
        self,
        autoscaler: Autoscaler,
        overrides: Overrides,
        board: Board,
        clock: Callable[[], float],
    ) -> None:
        self._autoscaler = autoscaler
        self._overrides = overrides
        self._board = board
        self._clock = clock

    def handlers(self) -> dict[str, Callable[..., Any]]:
        """By command."""
        return {
            "status": self._on_loop(self.status, after_look=True),
            "set": self._on_loop(self.set),
            "drain": self._on_loop(self.drain),
            "resume": self._on_loop(self.resume),
            "history": self.history,
            "drain_node": self._on_loop(self.drain_node),
            "stop_node": self._on_loop(self.stop_node),
        }

    def later(self) -> Future[dict[str, Any]]:
        """:meth:`announced`, after another look, which is the next that was due; any thread."""
        return self._autoscaler.ask(self.announced, after_look=True)

    def announced(self) -> dict[str, Any]:
        """All fleets, as they were at the last look, and the devices that they may use.

        Of their nodes, what the autoscaler knows: the rest they tell themselves.
        """
        scaler = self._autoscaler
        processes = {process.name: process for process in scaler.provider.list()}
        reports, now = scaler.reports.all(), self._clock()
        fleets = [
            fleet_status(keeper, now=now, processes=processes, reports=reports)
            for _, keeper in sorted(scaler.keepers.items())
        ]
        # Where no fleet wants any, the driver is left alone.
        is_wanted = any(fleet["knobs"]["gpus"] for fleet in fleets)
        devices = scaler.pins.inventory().devices if is_wanted else ()
        return {
            "autoscaler": {"host": socket.gethostname(), "pid": os.getpid()},
            "fleets": fleets,
            "devices": [device_status(device, processes.values()) for device in devices],
        }

    def status(self) -> dict[str, Any]:
        """The same with all that nodes have told, as everybody shows it who hears them.

        The mailbox has another look made before: a node that has started since would be missing.
        """
        said = self.announced()
        for fleet in said["fleets"]:
            self._board.note({"type": FLEET, "hostname": HOSTNAME, **fleet})
        return {**said, "fleets": [self._board.fleet(fleet["queue"]) for fleet in said["fleets"]]}

    def set(self, queue: str, values: Mapping[str, Any], reset: bool = False) -> dict[str, Any]:
        """Change knobs of one fleet; None takes an override back, ``reset`` all of before.

        Raises:
            ConfigurationError: no such fleet, or a value that is wrong; nothing has changed.
            OSError: it cannot be kept; nothing has changed.
        """
        keeper = self._keeper(queue)
        kept = self._overrides
        before = {} if reset else kept.knobs.get(queue, {})
        said = changed(before, values)
        fleet = keeper.fleet.overridden(said)
        kept.keep(knobs={**kept.knobs, queue: said}, drained=kept.drained)
        keeper.reconfigure(fleet)
        return {"queue": queue, "overrides": said}

    def drain(self, queues: list[str] | None = None) -> dict[str, Any]:
        """Have these fleets drain, or all; they stay without nodes until resumed."""
        return self._mark(queues, drained=True)

    def resume(self, queues: list[str] | None = None) -> dict[str, Any]:
        """Let these fleets, or all, follow their demand again."""
        return self._mark(queues, drained=False)

    def history(self, queue: str) -> dict[str, Any]:
        """A fleet's last hour, for a page that begins to listen; from any thread."""
        return {"queue": queue, **self._board.memory(queue)}

    def drain_node(self, node: str) -> dict[str, Any]:
        """Have one node finish what it has, and leave; another one starts if one is needed."""
        self._autoscaler.drain_node(node)
        return {"node": node}

    def stop_node(self, node: str) -> dict[str, Any]:
        """End one node now; its inputs go back to the broker."""
        self._autoscaler.stop_node(node)
        return {"node": node}

    def _mark(self, queues: list[str] | None, *, drained: bool) -> dict[str, Any]:
        keepers = [self._keeper(queue) for queue in (queues or sorted(self._autoscaler.keepers))]
        kept, marked = self._overrides, {keeper.fleet.queue for keeper in keepers}
        kept.keep(
            knobs=kept.knobs, drained=kept.drained | marked if drained else kept.drained - marked
        )
        for keeper in keepers:
            keeper.drained = drained
        return {"queues": [keeper.fleet.queue for keeper in keepers], "drained": drained}

    def _keeper(self, queue: str) -> Keeper:
        keepers = self._autoscaler.keepers
        if queue not in keepers:
            raise ConfigurationError(
                f"no fleet {queue!r}: the autoscaler keeps {', '.join(sorted(keepers)) or 'none'}"
            )
        return keepers[queue]

    def _on_loop(self, call: Callable[..., Any], *, after_look: bool = False) -> Callable[..., Any]:
        def handle(**arguments: Any) -> Any:
            asked = self._autoscaler.ask(lambda: call(**arguments), after_look=after_look)
            return asked.result(WITHIN)

        return handle
