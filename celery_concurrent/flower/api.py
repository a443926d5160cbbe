"""The same for programs; open to whom Flower's own API is open to."""

from __future__ import annotations

from flower.api import BaseApiHandler

from celery_concurrent.flower import views
from celery_concurrent.flower.handlers import JsonHandler


class ApiHandler(JsonHandler, BaseApiHandler):
    """Flower's API: 401 where neither a login nor FLOWER_UNAUTHENTICATED_API is set up."""


class OverviewApi(views.Overview, ApiHandler):
    """``/api/fleet``."""


class FleetApi(views.FleetDetail, ApiHandler):
    """``/api/fleet/QUEUE``; what is posted there is in ``controls``."""


class NodeApi(views.NodeDetail, ApiHandler):
    """``/api/fleet/node/NAME``."""


class LogApi(views.InputLog, ApiHandler):
    """``/api/input/ID/log``."""
