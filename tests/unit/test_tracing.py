"""Tracing where there is none to do, where the instrumentation does it, and where it fails."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from celery.exceptions import Retry

pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("opentelemetry.instrumentation.celery")

from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NoOpTracerProvider, format_trace_id

from celery_concurrent import tracing
from celery_concurrent.pool import spans
from celery_concurrent.pool.inputs import LOST, STOPPED, Input
from celery_concurrent.pool.outcomes import Outcome
from tests.services.spans import tracing_here

#: Where OpenTelemetry is not installed; redis-py looks for it, this package must not.
IN_A_PROCESS = """
import sys

asked = []

class NotInstalled:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] != "opentelemetry":
            return None
        frame = sys._getframe(1)
        while frame.f_globals["__name__"].startswith("importlib"):
            frame = frame.f_back
        asked.append(frame.f_globals["__name__"])
        raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, NotInstalled)
from celery import Celery
from celery_concurrent import concurrent, task_map
from celery_concurrent.pool import concurrent as pool, spans

app = Celery("app", broker="memory://", backend="cache+memory://")

@app.task
@concurrent(max_inputs=2)
async def run(number):
    return number

run.delay(0)
task_map(run, [1]).publish()
spans.start(None)  # what a node calls for each input
print([name for name in asked if name.startswith("celery")])
"""


@pytest.fixture
def finished() -> Iterator[InMemorySpanExporter]:
    """A traced process: the spans that have ended."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with traced_by(provider):
        yield exporter


@contextmanager
def traced_by(provider: Any, *, instrumented: bool = False) -> Iterator[None]:
    with tracing_here(lambda: trace.set_tracer_provider(provider), instrumented=instrumented):
        yield


def made(**headers: Any) -> Input:
    request = SimpleNamespace(
        id="id",
        message=SimpleNamespace(headers=headers),
        request_dict=headers,
        delivery_info={"routing_key": "work"},
        hostname="node@host",
        task=SimpleNamespace(throws=()),
    )
    return Input(
        id="id",
        name="task",
        root_id="root",
        group="task",
        is_async=False,
        target=lambda: None,
        args=(),
        request=request,
        token=1,
        soft_limit=None,
        hard_limit=None,
    )


def start(input: Input) -> None:
    """Start its span in a context of its own, as the engine does."""
    copy_context().run(spans.start, input)


def only(finished: InMemorySpanExporter) -> ReadableSpan:
    (span,) = finished.get_finished_spans()
    return span


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def published(name: str = "task") -> dict[str, Any]:
    headers: dict[str, Any] = {"id": "id"}
    tracing.on_publish(sender=name, headers=headers, routing_key="work")
    return headers


def test_a_process_without_opentelemetry_is_not_asked_for_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_without_a_provider_nothing_is_traced() -> None:
    input = made()
    start(input)
    spans.end(input, Outcome((0, "value", 0.1)))
    assert (tracing.tracer(), input.span, published()) == (None, None, {"id": "id"})


def test_with_a_provider_that_does_nothing_nothing_is_traced() -> None:
    with traced_by(TracerProvider()):  # tracing_here wants the SDK's
        trace._TRACER_PROVIDER = NoOpTracerProvider()
        assert (tracing.tracer(), published()) == (None, {"id": "id"})


def test_beside_the_instrumentation_nothing_is_traced_until_it_leaves() -> None:
    provider = TracerProvider()
    with traced_by(provider, instrumented=True):
        assert (tracing.tracer(), published()) == (None, {"id": "id"})
    with traced_by(provider):
        assert tracing.tracer() is not None


def test_a_provider_that_comes_later_is_used_from_then_on(
    finished: InMemorySpanExporter,
) -> None:
    first = tracing.tracer()
    assert first is tracing.tracer()
    with traced_by(TracerProvider()):
        assert tracing.tracer() is not first
    published()
    assert only(finished).name == "apply_async/task"


def test_a_sender_that_is_not_sampled_is_still_told_of(finished: InMemorySpanExporter) -> None:
    with traced_by(TracerProvider(sampler=ALWAYS_OFF)):
        headers = published()
        input = made(**headers)
        start(input)
        spans.end(input, Outcome((0, "value", 0.1)))
    assert int(headers["traceparent"][-2:], 16) & 1 == 0
    assert finished.get_finished_spans() == ()


def test_baggage_comes_along(finished: InMemorySpanExporter) -> None:
    context = tracing.parent_of({"baggage": "user=7", "traceparent": 1, "id": "id"})
    assert baggage.get_baggage("user", context) == "7"


def test_a_message_that_stands_for_many_has_no_id(finished: InMemorySpanExporter) -> None:
    with tracing.for_many():
        published()
    span = only(finished)
    assert span.name == "task_map/task"
    assert "messaging.message.id" not in attributes(span)
    finished.clear()
    published()
    assert attributes(only(finished))["messaging.message.id"] == "id"


def test_a_message_of_another_trace_gets_this_ones_context(
    finished: InMemorySpanExporter,
) -> None:
    headers = {"id": "id", "traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}  # as a retry has them
    tracing.on_publish(sender="task", headers=headers)
    context = only(finished).get_span_context()
    assert context is not None
    assert format_trace_id(context.trace_id) in headers["traceparent"]


def test_a_span_ends_once(finished: InMemorySpanExporter, caplog: pytest.LogCaptureFixture) -> None:
    input = made()
    start(input)
    spans.end(input, Outcome((0, "value", 0.1)))
    spans.end(input, None)
    assert attributes(only(finished))["celery.state"] == "SUCCESS"
    assert caplog.records == []  # the SDK tells of a second end


@pytest.mark.parametrize(
    ("ended", "dropped", "state", "error"),
    [
        (None, False, None, "InputCancellation"),
        (STOPPED, False, None, "InputCancellation"),
        (LOST, True, None, "InputCancellation"),
        ("it ran over", False, "FAILURE", "TimeLimitExceeded"),
        ("it was revoked", True, None, "InputCancellation"),  # and is not among the revoked
    ],
)
def test_an_input_that_was_ended_is_told_as_that(
    finished: InMemorySpanExporter,
    ended: str | None,
    dropped: bool,
    state: str | None,
    error: str,
) -> None:
    input = made()
    start(input)
    input.ended, input.dropped = ended, dropped
    spans.end(input, None)
    span = only(finished)
    assert not span.status.is_ok
    assert attributes(span).get("celery.state") == state
    assert attributes(span)["error.type"].endswith(f".{error}")


def test_a_retry_tells_its_reason(finished: InMemorySpanExporter) -> None:
    input = made()
    start(input)
    spans.end(input, Outcome((1, raised(Retry("busy", when=3)), 0.1)))
    told = attributes(only(finished))
    assert (told["celery.state"], told["celery.retry.reason"]) == ("RETRY", "busy")


def raised(error: Exception) -> ExceptionInfo:
    try:
        raise error
    except type(error):
        return ExceptionInfo()


class Broken(SpanProcessor):
    """A user's processor that fails."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise RuntimeError("broken")


def test_what_fails_in_tracing_is_told_once_and_harms_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing, "_failed", set())
    provider = TracerProvider()
    provider.add_span_processor(Broken())
    with traced_by(provider), caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert published() == {"id": "id"}
            input = made()
            start(input)
            spans.end(input, Outcome((0, "value", 0.1)))
    assert [record.getMessage() for record in caplog.records] == [
        "tracing failed; this is told once"
    ] * 2  # of the publisher's side, and the node's
