"""What a Flower gets: the board that hears the events, the page, its data and the API."""

from __future__ import annotations

from typing import Any

import prometheus_client
from flower.app import rewrite_handler
from prometheus_client.registry import CollectorRegistry
from tornado.web import url

from celery_concurrent.board import Board
from celery_concurrent.flower import api, controls, pages
from celery_concurrent.flower.asking import Asking
from celery_concurrent.flower.listening import listen
from celery_concurrent.flower.templating import FleetLoader
from celery_concurrent.metrics import collector
from celery_concurrent.metrics.tally import Tally

#: One part of a path: a queue, a node or an input, percent-encoded.
_NAME = r"([^/]+)"


def dress(flower: Any, registry: CollectorRegistry = prometheus_client.REGISTRY) -> None:
    """Give an application that has not started yet the Fleet page and its API.

    What may fail comes first, so that an application is dressed or as it was.

    Args:
        flower: a ``flower.app.Flower`` (2.2).
        registry: what Flower shows at ``/metrics``.
    """
    board, tally = Board(), Tally()
    loader = FleetLoader(flower.settings["template_path"])
    loader.load("fleet.html")
    handlers = _handlers()
    prefix = flower.options.url_prefix
    if prefix:
        handlers = [rewrite_handler(handler, prefix) for handler in handlers]
    collector.register(board, tally, registry)

    flower.settings.update(
        template_loader=loader, fleet_board=board, fleet_asking=Asking(flower, board)
    )
    # These come before Flower's own, so before the one that takes every path, and they are no
    # part of the list that all of Flower's applications share.
    flower.add_handlers(r".*", handlers)
    listen(flower, board.note, tally.note)


def _handlers() -> list[Any]:
    return [
        url(r"/fleet", pages.FleetPage, name="fleet"),
        url(r"/fleet/static/(.*)", pages.FleetFile, pages.static_options(), name="fleet_static"),
        url(r"/fleet/data", pages.OverviewData),
        url(rf"/fleet/data/fleet/{_NAME}", pages.FleetData),
        url(rf"/fleet/data/node/{_NAME}", pages.NodeData),
        url(rf"/fleet/data/input/{_NAME}/log", pages.LogData),
        url(r"/api/fleet", api.OverviewApi),
        # Before the nodes: a queue may be called "node", and no node is called "drain".
        url(rf"/api/fleet/{_NAME}/(drain|resume)", controls.FleetDrain),
        url(rf"/api/fleet/node/{_NAME}", api.NodeApi),
        url(rf"/api/fleet/node/{_NAME}/(drain|stop)", controls.NodeEnd),
        url(rf"/api/fleet/{_NAME}", controls.FleetControl),
        url(rf"/api/input/{_NAME}/log", api.LogApi),
        url(rf"/api/input/{_NAME}/cancel", controls.InputCancel),
    ]
