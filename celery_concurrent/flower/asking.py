"""Asking the autoscaler, over its mailbox, and nodes, by remote control commands."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from tornado.web import HTTPError

from celery_concurrent.board import Board
from celery_concurrent.flower.refusals import RefusalError, shown

logger = logging.getLogger(__name__)

#: Seconds for the autoscaler: somewhat more than it gives itself.
AUTOSCALER_WITHIN: Final = 6.0
NODE_WITHIN: Final = 2.0


class Asking:
    """Asks on behalf of requests, in Flower's own executor.

    Args:
        flower: the application.
        board: knows of the autoscalers.
    """

    def __init__(self, flower: Any, board: Board) -> None:
        self._flower = flower
        self._board = board
        self._under_way: dict[tuple[str, ...], asyncio.Future[dict[str, Any]]] = {}
        self._recalled: dict[str, asyncio.Future[None]] = {}

    async def autoscaler(self, command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What an autoscaler answers that does as it is told; all hear the command.

        Raises:
            RefusalError: none answers, or all refuse.
            tornado.web.HTTPError: the broker does not answer.
        """
        from celery_concurrent.autoscaler.mailbox import ask

        hosts = sum(not each["silent"] for each in self._board.autoscalers())
        asked = partial(
            ask,
            self._flower.capp,
            command,
            arguments,
            timeout=AUTOSCALER_WITHIN,
            limit=max(1, hosts),
        )
        answers = await self._blocking(f"fleet.{command}", asked)
        if not answers:
            raise RefusalError(
                504,
                f"no autoscaler of this app has answered within {AUTOSCALER_WITHIN:g} s, so "
                "perhaps nothing has changed: see that `celery -A app autoscaler` runs",
            )
        done = [answer for answer in answers if "error" not in answer]
        answer: dict[str, Any] = (done or answers)[0]
        if not done:
            raise RefusalError(
                409, f"the autoscaler refuses: {answer['error'] or 'without a reason'}"
            )
        return answer

    def recall(self, queue: str) -> None:
        """Have the board take what the fleet's autoscaler has kept from before Flower began.

        Once for each fleet, and nobody waits for it: the next look shows it.
        """
        if queue not in self._recalled:
            self._recalled[queue] = asyncio.ensure_future(self._recall(queue))

    async def node(
        self, name: str, command: str, arguments: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """What a node answers, as it is: anybody may have sent it. None if it does not.

        Who asks the same while the answer is under way gets that one: a page that is open in
        ten browsers costs a node what it costs in one.

        Raises:
            tornado.web.HTTPError: the broker does not answer.
        """
        key = (name, command, repr(sorted(arguments.items())))
        asked = self._under_way.get(key)
        if asked is None:
            asked = asyncio.ensure_future(self._ask_node(name, command, arguments))
            self._under_way[key] = asked
            asked.add_done_callback(lambda _: self._under_way.pop(key, None))
        answer = await asked
        return answer or None

    async def shut_down(self, node: str) -> None:
        """Have a node that no autoscaler keeps finish what it has, and leave; a warm shutdown."""
        broadcast = self._flower.capp.control.broadcast
        await self._blocking("node.drain", partial(broadcast, "shutdown", destination=[node]))

    async def cancel(self, input_id: str) -> None:
        """Cancel an input, wherever it is."""
        await self._blocking(
            "input.cancel", partial(self._flower.capp.control.revoke, input_id, terminate=True)
        )

    async def _recall(self, queue: str) -> None:
        try:
            self._board.recall(queue, await self.autoscaler("history", {"queue": queue}))
        except (RefusalError, HTTPError) as error:
            logger.info("the fleet %s has no history from before: %s", shown(queue), error)

    async def _ask_node(
        self, name: str, command: str, arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        ask = partial(
            self._flower.capp.control.broadcast,
            command,
            arguments=dict(arguments),
            destination=[name],
            reply=True,
            timeout=NODE_WITHIN,
            limit=1,
        )
        for reply in await self._blocking(f"node.{command}", ask) or ():
            answer = reply.get(name) if isinstance(reply, dict) else None
            if isinstance(answer, dict):
                return answer
        return {}

    async def _blocking(self, operation: str, call: Callable[[], Any]) -> Any:
        """In Flower's executor; the broker's errors become a 503 there (2.2)."""
        return await self._flower.blocking_runner.run(operation, "fleet", call)
