"""An autoscaler's connections when brokers of a list are gone, or one dies without a word."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from celery import Celery

from celery_concurrent.autoscaler.backlog import Backlog
from celery_concurrent.autoscaler.listening import Listener
from celery_concurrent.autoscaler.mailbox import Respondent, ask
from celery_concurrent.autoscaler.reports import Reports
from celery_concurrent.outlets import DispatcherOutlet, KeptOutlet
from celery_concurrent.worker.telling import TYPE
from tests.services.process import free_port
from tests.services.project import Broker, apart
from tests.services.proxy import Proxy
from tests.services.waiting import wait_for


class Ends:
    """What an autoscaler has at its broker, and a node that tells of itself."""

    def __init__(self, app: Any, nodes_app: Any) -> None:
        self.heard: list[float] = []
        self.app = app
        self.backlog = Backlog(app)
        self.outlet = KeptOutlet(lambda: DispatcherOutlet(nodes_app, "n@h"), lost="%s", again="")
        self.attached = [
            Listener(app, Reports(), lambda: None, lambda _: self.heard.append(time.monotonic())),
            Respondent(app, {"status": lambda: {"here": True}}),
        ]

    def __enter__(self) -> Ends:
        for each in self.attached:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.attached:
            each.close()
        self.backlog.close()
        self.outlet.close()

    def wait_until_heard(self) -> None:
        since = time.monotonic()

        def is_heard() -> bool:
            self.outlet.send([(TYPE, {"state": "ready"})])
            return any(at > since for at in self.heard)

        wait_for(is_heard, 20.0, what="an event")

    def wait_until_answering(self, app: Any) -> None:
        answer = {"here": True}
        wait_for(lambda: ask(app, "status", timeout=0.5) == [answer], 20.0, what="an answer")

    def wait_until_read(self) -> None:
        wait_for(lambda: self.backlog.read(["q"]) == {"q": 0}, 20.0, what="the backlog")


@contextmanager
def ends(url: str, nodes_url: str | None = None, **conf: Any) -> Iterator[Ends]:
    with apart(), ExitStack() as stack:
        apps = [Celery("lost", broker=each, set_as_current=False) for each in (url, nodes_url)]
        for app in apps:
            app.conf.update(conf)
        yield stack.enter_context(Ends(apps[0], apps[0] if nodes_url is None else apps[1]))


@contextmanager
def silent_port() -> Iterator[int]:
    """A port at which attempts to connect have no answer: its queue of them is full (Linux)."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_a_broker_behind_two_that_refuse_is_found(broker: Broker) -> None:
    urls = [broker.at(free_port()) for _ in range(2)]
    with ends(";".join([*urls, broker.url])) as found:
        found.wait_until_read()
        found.wait_until_heard()
        found.wait_until_answering(found.app)


def test_a_broker_behind_one_that_does_not_answer_is_found(broker: Broker) -> None:
    with (
        silent_port() as port,
        ends(
            f"{broker.at(port)};{broker.url}",
            # Longer than the pause between two tries, which must not be all there is for a list.
            broker_connection_timeout=1.1,
        ) as found,
    ):
        found.wait_until_read()
        found.wait_until_heard()
        found.wait_until_answering(found.app)


def test_connections_that_died_without_a_word_are_made_anew(broker: Broker) -> None:
    proxy = Proxy(broker.port)
    options = {"health_check_interval": 0.3} if broker.kind == "redis" else {}
    try:
        with ends(
            broker.at(proxy.port),
            # A node on RabbitMQ does not notice: the proxy's end of the connection is alive.
            None if broker.kind == "redis" else broker.url,
            broker_connection_timeout=1.0,
            broker_heartbeat=2,
            broker_transport_options=options,
        ) as found:
            found.wait_until_heard()
            found.wait_until_answering(found.app)
            found.wait_until_read()
            proxy.strand()
            found.wait_until_heard()
            found.wait_until_answering(found.app)
            found.wait_until_read()
    finally:
        proxy.close()
