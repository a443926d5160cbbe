"""What a node holds of a message while its input runs."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from celery import Celery
from celery.app import trace
from celery.worker.request import Request
from kombu.transport import virtual

from celery_concurrent.redis.messages import HeldMessage
from celery_concurrent.worker.settling import SettlingCall


def plain(number: int) -> int:
    return number


class Channel:
    """As much of a channel as a message needs."""

    def decode_body(self, body: str, _encoding: str) -> bytes:
        return base64.b64decode(body)


def envelope(**headers: Any) -> dict[str, Any]:
    return {
        "body": base64.b64encode(b'[[1], {}, {"chain": null}]').decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"id": "1", "task": "plain", "lang": "py", **headers},
        "properties": {"delivery_tag": "tag", "delivery_info": {"routing_key": "q"}},
    }


def test_it_is_kombus_message() -> None:
    theirs = virtual.Message(envelope(), channel=Channel())
    held = HeldMessage(envelope(), channel=Channel())
    for name in (
        "body",
        "headers",
        "properties",
        "delivery_info",
        "errors",
        "_raw",
        "delivery_tag",
    ):
        assert getattr(held, name) == getattr(theirs, name), name
    assert not vars(held)
    with pytest.raises(AttributeError, match="no attribute 'header'"):
        held.header  # noqa: B018  # asked for


def test_a_body_that_cannot_be_decompressed_is_told_of() -> None:
    held = HeldMessage(envelope(compression="application/x-gzip"), channel=Channel())
    assert len(held.errors) == 1


@pytest.mark.parametrize("more", [{}, {"tenant": "acme", "kept": None}])
def test_headers_are_what_they_were_after_the_request_has_them(more: dict[str, Any]) -> None:
    app = Celery(set_as_current=False)
    task = app.task(name="plain")(plain)
    held = HeldMessage(envelope(**more), channel=Channel(), accept={"application/json"})
    headers = dict(held.headers)
    request = Request(held, app=app, task=task, headers=held.headers)
    held.share_headers(request.request_dict)
    # As the tracer does.
    request.request_dict.update(is_eager=False, args=[1], chain=None, callbacks=None)
    assert held.headers == headers
    assert list(held.headers) == list(headers)
    held.headers["mine"] = "stays"
    assert held.headers["mine"] == "stays"


def test_a_header_that_celery_overwrites_stays_the_messages() -> None:
    held = HeldMessage(envelope(hostname="theirs"), channel=Channel(), accept={"application/json"})
    held.share_headers({**held.headers, "hostname": "ours"})
    assert held.headers["hostname"] == "theirs"


def test_headers_that_the_request_has_made_are_not_the_messages() -> None:
    body = b'{"id": "1", "task": "plain", "args": [], "kwargs": {}}'
    said = envelope() | {"body": base64.b64encode(body).decode(), "headers": {"tenant": "acme"}}
    held = HeldMessage(said, channel=Channel(), accept={"application/json"})
    held.share_headers({"id": "1", "task": "plain", "lang": "py", "tenant": "acme"})
    assert held.headers == {"tenant": "acme"}


class Message:
    """Notes what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def ack_log_error(self, *args: Any) -> None:
        self.asked.append(args)

    def fail(self) -> None:
        raise ValueError("wrong")


def test_a_settling_call_is_made_where_it_is_to_be() -> None:
    message, soon = Message(), []
    call = SettlingCall(lambda *args: soon.append(args), (message.ack_log_error,), on_error=None)
    call.then(print, on_error=print)
    call("logger", (OSError,))
    ((function, *args),) = soon
    function(*args)
    assert message.asked == [("logger", (OSError,))]


def test_a_settling_call_that_fails_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    message = Message()
    SettlingCall(lambda function: function(), (message.fail,))()
    assert "fail of <" in caplog.text
    assert "ValueError: wrong" in caplog.text


def test_the_fields_that_celery_adds_are_known() -> None:
    """Else a shared message would show them among its headers."""
    app = Celery(set_as_current=False)
    task = app.task(name="plain")(plain)
    held = HeldMessage(envelope(), channel=Channel(), accept={"application/json"})
    headers = dict(held.headers)
    request = Request(held, app=app, task=task, headers=held.headers, hostname="here")
    held.share_headers(request.request_dict)
    trace.setup_worker_optimizations(app, "here")
    try:
        task.__trace__ = trace.build_tracer(task.name, task, app=app)
        embedded = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
        trace.fast_trace_task("plain", "1", request.request_dict, ([1], {}, embedded), None, None)
    finally:
        trace.reset_worker_optimizations(app)
    assert held.headers == headers
