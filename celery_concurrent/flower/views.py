"""What can be looked at, for the page and for programs alike: mixins of their handlers."""

from __future__ import annotations

from typing import Any

from tornado.web import authenticated

from celery_concurrent.flower import answers
from celery_concurrent.flower.arguments import View
from celery_concurrent.flower.asking import NODE_WITHIN
from celery_concurrent.flower.handlers import JsonHandler
from celery_concurrent.flower.refusals import RefusalError, shown


class Overview(JsonHandler):
    """All fleets in short."""

    @authenticated
    async def get(self) -> None:
        """Answer with them."""
        self.answer(answers.overview(self.board, self.head))


class FleetDetail(JsonHandler):
    """One fleet."""

    @authenticated
    async def get(self, queue: str) -> None:
        """Answer with it, a page of its nodes and its history."""
        view = View.of(self.one)
        body = answers.fleet_detail(self.board, queue, view, self.head)
        if body["fleet"]["kept"]:
            self.asking.recall(queue)
        self.answer(body)


class NodeDetail(JsonHandler):
    """One node."""

    @authenticated
    async def get(self, name: str) -> None:
        """Answer with it and with its inputs, which it is asked for."""
        node = answers.known_node(self.board, name)
        told, error = await self._inputs(node)
        self.answer(answers.node_detail(node, told, error, self.head))

    async def _inputs(self, node: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        if node["silent"]:
            return {}, "the node has said nothing for a while, so it is not asked for its inputs"
        if node["state"] == "starting":
            return {}, "the node starts, and has no inputs yet"
        told = await self.asking.node(node["name"], "node_inputs", {"limit": answers.MOST_INPUTS})
        if told is None:
            why = ": it drains, and listens no longer" if node["state"] == "draining" else ""
            return {}, f"the node has not told its inputs within {NODE_WITHIN:g} s{why}"
        return told, told.get("error") and str(told["error"])


class InputLog(JsonHandler):
    """The log lines of one input."""

    @authenticated
    async def get(self, input_id: str) -> None:
        """Answer with those that its node still holds."""
        node = self._node_of(input_id)
        told = await self.asking.node(node, "input_log", {"input_id": input_id})
        error = None
        if told is None:
            error = f"the node {shown(node)} has not told its log lines within {NODE_WITHIN:g} s"
        self.answer(answers.log_of(input_id, node, told or {}, error))

    def _node_of(self, input_id: str) -> str:
        """The node that is named; else the one that task events, or its own words, tell of."""
        named = self.one("node")
        if named:
            name: str = answers.known_node(self.board, named)["name"]
            return name
        task = self.application.events.state.tasks.get(input_id)
        worker = getattr(task, "worker", None)
        if worker is not None:
            return str(worker.hostname)
        for node in self.board.nodes():
            if (node["last_input"] or {}).get("id") == input_id:
                return str(node["name"])
        raise RefusalError(
            404,
            f"nobody has told which node has the input {shown(input_id)}: name it by ?node=NAME, "
            "or have nodes send task events (worker_send_task_events = True)",
        )
