"""Metrics of a process of its own: ``--metrics-port`` of the autoscaler."""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping
from typing import Any

from celery_concurrent.board import Board
from celery_concurrent.board.fields import names_of
from celery_concurrent.board.words import NODE
from celery_concurrent.errors import ConfigurationError, MissingExtraError
from celery_concurrent.metrics.tally import Tally


class Metrics:
    """A board, a tally and an HTTP server, until :meth:`close`.

    Args:
        address: where it listens, an IP address or a name.
        port: 0 for any that is free.
        host: whose nodes count.
        queues: of the fleets whose nodes count. All autoscalers of a broker hear all nodes, those
            of other hosts and other apps: what two of them exposed would count twice.

    Raises:
        ConfigurationError: it cannot listen there.
        MissingExtraError: ``prometheus_client`` is not installed.
    """

    def __init__(self, address: str, port: int, host: str, queues: Collection[str]) -> None:
        try:
            import prometheus_client
        except ImportError as error:
            raise MissingExtraError(
                f"--metrics-port {port} needs prometheus_client: "
                'pip install "celery-concurrent[metrics]"'
            ) from error
        from celery_concurrent.metrics.collector import register

        self._host, self._queues = host, frozenset(queues)
        self._board, self._tally = Board(), Tally()
        # One of its own: what else this process exposes is no part of a fleet.
        registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=registry)
        register(self._board, self._tally, registry)
        try:
            self._server, self._thread = prometheus_client.start_http_server(
                port, address, registry
            )
        except OSError as error:
            raise ConfigurationError(
                f"metrics cannot be served at --metrics-port {port} of --metrics-address "
                f"{address}: {error.strerror}. {_remedy(error)}"
            ) from error
        shown = f"[{address}]" if ":" in address else address
        self.url = f"http://{shown}:{self._server.server_port}/metrics"

    def note(self, event: Mapping[str, Any]) -> None:
        """Take an event; from any thread."""
        if event.get("type") == NODE and not self._is_ours(event):
            return
        self._board.note(event)
        self._tally.note(event)

    def _is_ours(self, event: Mapping[str, Any]) -> bool:
        name = event.get("hostname")
        if not isinstance(name, str) or name.rpartition("@")[2] != self._host:
            return False
        return not self._queues.isdisjoint(names_of(event.get("queues")))

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _remedy(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "Name another port, or end what listens there: another autoscaler needs its own"
    return "Name an address of this host, and a port that you may listen at"
