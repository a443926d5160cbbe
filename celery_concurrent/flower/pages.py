"""The Fleet page, its files and its data; with the login that Flower's own pages ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from flower.views import BaseHandler
from tornado.web import StaticFileHandler, authenticated

from celery_concurrent.flower import views

STATIC: Final = Path(__file__).with_name("static")

#: Nothing comes from another host, nothing inline runs, and no other page may frame this one.
#: Bootstrap's style sheet, which is Flower's, has its pictures in ``data:``.
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


class FleetPage(BaseHandler):
    """One page for all fleets, one fleet and one node: its script reads the query."""

    @authenticated
    async def get(self) -> None:
        """Render it. Flower's own way of rendering sets the cookie with the token, too."""
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("X-Frame-Options", "DENY")
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("Cache-Control", "no-store")
        self.render("fleet.html", fleet_static_url=self._static_url)

    def _static_url(self, name: str) -> str:
        """The address of one of our files; it changes with the file, so it may be kept for ever."""
        version = StaticFileHandler.get_content_version(str(STATIC / name))
        url: str = self.reverse_url("fleet_static", name)
        return f"{url}?v={version[:20]}"


class FleetFile(StaticFileHandler):
    """Our script and style sheet; as Flower's own, they ask for no login."""

    def set_extra_headers(self, path: str) -> None:  # noqa: ARG002  # Tornado's signature
        """A browser asks again for a file whose address tells no version: a script's imports."""
        self.set_header("X-Content-Type-Options", "nosniff")
        if "v" not in self.request.arguments:
            self.set_header("Cache-Control", "no-cache")


class OverviewData(views.Overview):
    """``/fleet/data``."""


class FleetData(views.FleetDetail):
    """``/fleet/data/fleet/QUEUE``."""


class NodeData(views.NodeDetail):
    """``/fleet/data/node/NAME``."""


class LogData(views.InputLog):
    """``/fleet/data/input/ID/log``."""


def static_options() -> dict[str, Any]:
    """What :class:`FleetFile` is made with."""
    return {"path": str(STATIC)}
