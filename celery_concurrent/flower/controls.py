"""What changes something: knobs, drains, stops and cancellations, for the page and programs."""

from __future__ import annotations

import logging
from typing import Any

from tornado import web
from tornado.web import authenticated

from celery_concurrent.flower import answers, guard
from celery_concurrent.flower.api import ApiHandler, FleetApi
from celery_concurrent.flower.arguments import Change, body_of, no_body
from celery_concurrent.flower.refusals import RefusalError, shown

logger = logging.getLogger(__name__)


class ControlHandler(ApiHandler):
    """A change, once it is clear that whoever asks for it may have it."""

    def check_xsrf_cookie(self) -> None:
        """Refuse what a page of another origin may have sent, whatever the login.

        Flower itself asks for the token under OAuth alone.
        """
        headers = self.request.headers
        if not guard.is_from_browser(headers):
            super().check_xsrf_cookie()
            return
        foreign = guard.why_foreign(headers, self.request.host)
        if foreign is not None:
            raise web.HTTPError(403, f"refused: not sent by a page of this Flower ({foreign})")
        if not headers.get("X-XSRFToken"):
            raise web.HTTPError(
                403,
                "refused: a browser must send the header X-XSRFToken, with what the cookie _xsrf "
                "holds",
            )
        # Tornado's own comparison, of the token and the cookie.
        web.RequestHandler.check_xsrf_cookie(self)

    def prepare(self) -> None:
        """Refuse where nothing may be changed."""
        super().prepare()
        if self.request.method == "POST" and self.application.options.read_only:
            raise RefusalError(403, self.head.why_no_controls or "read only mode is enabled")

    def kept(self, queue: str) -> None:
        """Refuse a change of a fleet that nobody keeps.

        Raises:
            RefusalError: nobody has told of it, or it has no autoscaler.
        """
        if not answers.known_fleet(self.board, queue)["kept"]:
            raise RefusalError(
                409,
                f"no autoscaler has told that it keeps the fleet {shown(queue)}: start `celery -A "
                "app autoscaler`, or wait some seconds if Flower has only just started",
            )

    def done(self, message: str, **more: Any) -> None:
        """Answer, and leave a line in Flower's log of who did it."""
        logger.info("%s user=%s ip=%s", message, self.current_user, self.request.remote_ip)
        self.answer({"message": message, **more})


class FleetControl(ControlHandler, FleetApi):
    """``/api/fleet/QUEUE``."""

    @authenticated
    async def post(self, queue: str) -> None:
        """Change the fleet's knobs."""
        change = Change.of(body_of(self.request.body))
        self.kept(queue)
        answer = await self.asking.autoscaler(
            "set", {"queue": queue, "values": dict(change.values), "reset": change.reset}
        )
        overrides = answer.get("overrides")
        overrides = overrides if isinstance(overrides, dict) else {}
        told = ", ".join(f"{name}={value}" for name, value in overrides.items())
        self.done(
            f"fleet {shown(queue)}: overrides in force: {told or 'none'}", overrides=overrides
        )


class FleetDrain(ControlHandler):
    """``/api/fleet/QUEUE/drain`` and ``/api/fleet/QUEUE/resume``."""

    @authenticated
    async def post(self, queue: str, order: str) -> None:
        """Have its nodes leave, and none start; or have it follow its demand again."""
        no_body(self.request.body)
        self.kept(queue)
        await self.asking.autoscaler(order, {"queues": [queue]})
        told = "drains until it is resumed" if order == "drain" else "follows its demand again"
        self.done(f"fleet {shown(queue)} {told}")


class NodeEnd(ControlHandler):
    """``/api/fleet/node/NAME/drain`` and ``/api/fleet/node/NAME/stop``."""

    @authenticated
    async def post(self, name: str, order: str) -> None:
        """Have a node leave, once its inputs have ended or now."""
        no_body(self.request.body)
        node = answers.known_node(self.board, name)
        if not await self._has_told_autoscaler(node, order):
            if order == "stop":
                raise RefusalError(
                    409,
                    f"no autoscaler keeps the node {shown(name)}, so only who has started it can "
                    "stop it; it can be drained",
                )
            await self.asking.shut_down(name)
        self.done(f"node {shown(name)} {'drains' if order == 'drain' else 'is stopped'}")

    async def _has_told_autoscaler(self, node: dict[str, Any], order: str) -> bool:
        """Whether the node has one, which knows now.

        A node of a fleet that is kept may be too young for its autoscaler to have told of it.
        """
        fleets = {each["queue"] for each in self.board.fleets() if each["kept"]}
        if not node["kept"] and fleets.isdisjoint(node["queues"]):
            return False
        try:
            await self.asking.autoscaler(f"{order}_node", {"node": node["name"]})
        except RefusalError as refusal:
            if node["kept"] or refusal.status != 409:
                raise
            return False
        return True


class InputCancel(ControlHandler):
    """``/api/input/ID/cancel``."""

    @authenticated
    async def post(self, input_id: str) -> None:
        """Have its node cancel it; an input that still waits is dropped when it is fetched."""
        no_body(self.request.body)
        await self.asking.cancel(input_id)
        self.done(f"input {shown(input_id)} is being cancelled")
