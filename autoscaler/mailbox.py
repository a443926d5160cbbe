"""Talking to a running autoscaler, over the app's broker: Celery's own kind of mailbox.

``fleet status`` and its like need no port, no file and no second secret: who may use the broker
may ask. Each app has a mailbox of its own; workers do not listen to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kombu import Producer
from kombu.pidbox import Mailbox

from celery_concurrent.autoscaler.announcing import HOSTNAME
from celery_concurrent.autoscaler.attached import Attached
from celery_concurrent.brokers import reach

Handler = Callable[..., Any]


def mailbox_of(app: Any, producers: Any = None) -> Mailbox:
    """The app's mailbox for autoscalers.

    Args:
        app: the Celery app.
        producers: a pool of those that publish; None for the mailbox's own connection.
    """
    return Mailbox(
        f"{app.conf.control_exchange}.autoscaler.{app.main or 'app'}",
        type="fanout",
        accept=["json"],
        serializer="json",
        producer_pool=producers,
        queue_ttl=app.conf.control_queue_ttl,
        queue_expires=app.conf.control_queue_expires,
    )


def ask(
    app: Any,
    command: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    timeout: float = 2.0,
    limit: int = 1,
) -> list[dict[str, Any]]:
    """What the app's autoscalers answer; empty when none does within ``timeout`` seconds.

    Args:
        app: the Celery app.
        command: all of them carry it out.
        arguments: its.
        timeout: seconds.
        limit: of so many answers; each host may have an autoscaler.

    Raises:
        kombu.exceptions.OperationalError: the broker does not answer.
    """
    with app.connection_for_write() as connection:
        reach(connection)
        replies: Any = mailbox_of(app)(connection)._broadcast(
            command, dict(arguments or {}), reply=True, timeout=timeout, limit=limit
        )
    return [answer for reply in replies or [] for answer in reply.values()]


class _Producers:
    """In the place of a pool: each answer has a connection of its own, to the broker found now.

    One that was kept may have died without a word. The one that is listened to would be made
    anew for its producer when it is lost, and nobody would listen any more.
    """

    def __init__(self, app: Any) -> None:
        self._found = app.connection_for_write()
        with self._found:
            reach(self._found)

    @contextmanager
    def acquire(self) -> Iterator[Producer]:
        # To no other of a list: it may take longer to fail than who asks waits.
        with self._found.clone(alternates=[]) as connection:
            reach(connection)
            yield Producer(connection, auto_declare=False)


class Respondent(Attached):
    """Answers, on a thread of its own.

    Args:
        app: the Celery app.
        handlers: by command; called with its arguments, return what JSON can hold. What one
            raises is the answer ``{"error": ...}``.
    """

    def __init__(self, app: Any, handlers: Mapping[str, Handler]) -> None:
        super().__init__(app, "fleet-mailbox", "mailbox")
        self._handlers = {name: self._answering(handler) for name, handler in handlers.items()}

    def consume(self, connection: Any) -> None:
        """Answer what comes."""
        mailbox = mailbox_of(self._app, _Producers(self._app))(connection)
        node = mailbox.Node(HOSTNAME, handlers=self._handlers, state=None)
        node.channel = connection.default_channel
        node.listen(callback=node.handle_message)

    def _answering(self, handler: Handler) -> Handler:
        def answer(_state: Any, **arguments: Any) -> Any:
            try:
                return handler(**arguments)
            except Exception as error:
                return {"error": str(error)}

        return answer
