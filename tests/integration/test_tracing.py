"""Spans of OpenTelemetry: one per input, below its publisher's, whatever runs beside it."""

from __future__ import annotations

import itertools
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery.result import AsyncResult
from opentelemetry import trace
from opentelemetry.trace import format_span_id, format_trace_id

from celery_concurrent import task_map
from celery_concurrent.pool.inputs import LOST
from tests.services.fixtures import MakeProject, StartNode
from tests.services.node import Node
from tests.services.project import Broker, Project
from tests.services.spans import TRACING, Span, Spans, tracing_here
from tests.services.waiting import wait_for
from tests.services.witness import NOTING, Notes, outcome

SOURCE = (
    NOTING
    + TRACING
    + """
import asyncio, contextvars, os, sys, threading
from celery import Celery
from celery.exceptions import Ignore, Reject
from celery_concurrent import concurrent

if os.environ.get("TRACED"):
    trace_to(__file__ + ".spans")
if os.environ.get("TRACED") == "instrumentation":
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    CeleryInstrumentor().instrument()

app = Celery(__name__)
app.conf.task_default_queue = __name__
app.conf.concurrent_redis_lease = 1.0
app.conf.concurrent_stuck_timeout = 2.0
tracer = trace.get_tracer(__name__)

def here():
    return format(trace.get_current_span().get_span_context().span_id, "016x")

def below(name):
    with tracer.start_as_current_span(name):
        pass

@app.task
@concurrent(max_inputs=250)
async def run_async():
    async def child():
        with tracer.start_as_current_span("child task"):
            await asyncio.sleep(0.01)
    with tracer.start_as_current_span("function"):
        await asyncio.sleep(0.1)
    if "eventlet" in sys.modules:  # whose threads are nothing for async inputs
        below("thread")
    else:
        await asyncio.to_thread(below, "thread")
    await asyncio.gather(child())
    return here()

@app.task
@concurrent(max_inputs=250)
def run_sync():
    with tracer.start_as_current_span("function"):
        time.sleep(0.1)
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(below, "thread"))
    thread.start()
    thread.join()
    return here()

@app.task(bind=True, max_retries=2)
@concurrent(max_inputs=10)
async def retry_async(self, error=None):
    await asyncio.sleep(0.01)
    if self.request.retries < 2:
        raise self.retry(exc=error and KeyError(error), countdown=0.3)
    return here()

@app.task(bind=True, max_retries=2)
@concurrent(max_inputs=10)
def retry_sync(self, error=None):
    if self.request.retries < 2:
        raise self.retry(exc=error and KeyError(error), countdown=0.3)
    return here()

class Hostile(Exception):
    def __str__(self):
        raise ValueError("no text")

KINDS = {
    "failure": lambda: ValueError("broken"), "expected": lambda: LookupError("known"),
    "exit": lambda: SystemExit(3), "ignore": lambda: Ignore("not now"),
    "reject": lambda: Reject("never", requeue=False), "hostile": Hostile,
}

@app.task(throws=(LookupError,))
@concurrent(max_inputs=10)
async def fail_async(kind):
    await asyncio.sleep(0.01)
    raise KINDS[kind]()

@app.task(throws=(LookupError,))
@concurrent(max_inputs=10)
def fail_sync(kind):
    raise KINDS[kind]()

@app.task
@concurrent(max_inputs=10)
async def wait_async(deaf=False):
    note("started")
    while True:
        try:
            await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            if not deaf:
                raise

@app.task
@concurrent(max_inputs=10)
def wait_sync(deaf=False):
    note("started")
    while True:
        try:
            time.sleep(0.02)
        except BaseException:
            if not deaf:
                raise

@app.task
@concurrent(max_inputs=10)
async def publish_async():
    with tracer.start_as_current_span("publishing"):
        first = await asyncio.to_thread(run_sync.delay)
        return here(), first.id, run_async.delay().id

@app.task
@concurrent(max_inputs=10)
def publish_sync():
    with tracer.start_as_current_span("publishing"):
        return here(), run_sync.delay().id, run_async.delay().id

@app.task
@concurrent(max_inputs=10)
async def echo(number):
    return here()

@app.task
def plain():
    return here()
"""
)
POOLS = ["concurrent", pytest.param("eventlet", marks=pytest.mark.eventlet)]
BOTH = pytest.mark.parametrize("kind", ["async", "sync"])
#: What tells in a log that contexts or spans were mixed up.
COMPLAINTS = ("Failed to detach context", "ended span", "no existing span", "tracing failed")
tracer = trace.get_tracer(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A traced node, and this process, which publishes and is traced as well."""

    project: Project
    node: Node
    spans: Spans
    published: Spans
    notes: Notes

    def task(self, name: str) -> Any:
        return getattr(self.project.tasks, name)

    def publish(self, name: str, *args: Any, **options: Any) -> tuple[AsyncResult, str, str]:
        """Publish an input within a span of its own; its result, and the span's and trace's ids."""
        with tracer.start_as_current_span("publisher") as span:
            result = self.task(name).apply_async(args, **options)
        return result, span_id(span), format_trace_id(span.get_span_context().trace_id)

    def parent(self, span: Span) -> Span:
        """The span above this one, wherever it is."""
        found = [
            other
            for spans in (self.spans, self.published)
            for other in spans.ended()
            if other["id"] == span["parent"]
        ]
        assert len(found) == 1, f"{len(found)} parents of {span}"
        return found[0]

    def is_sound(self) -> None:
        """No span is open, none has ended twice, nobody complains of it."""
        self.spans.wait_until_closed()
        self.published.wait_until_closed()
        log = self.node.log()
        assert not [word for word in COMPLAINTS if word in log]


def span_id(span: trace.Span) -> str:
    return format_span_id(span.get_span_context().span_id)


MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(celery_project: MakeProject, celery_node: StartNode) -> Iterator[MakeBench]:
    with ExitStack() as closing:

        def make(
            broker: Broker,
            *options: str,
            pool: str = "concurrent",
            node: str = "traced",
            publisher: str = "traced",
        ) -> Bench:
            project = celery_project(SOURCE, broker=broker)
            file = Path(str(project.tasks.__file__))
            published = Path(f"{file}.published")
            if publisher:
                instrumented = publisher == "instrumentation"
                start = tracing_here(
                    lambda: project.tasks.trace_to(str(published)), instrumented=instrumented
                )
                closing.enter_context(start)
            return Bench(
                project=project,
                node=celery_node(project, *options, pool=pool, env={"TRACED": node}),
                spans=Spans(Path(f"{file}.spans")),
                published=Spans(published),
                notes=Notes(project),
            )

        yield make


def check_many(bench: Bench) -> None:
    """Run 200 inputs at once, each with its own publisher's span, and look at every span."""
    names = ["run_async", "run_sync"] * 100
    sent = [(name, *bench.publish(name)) for name in names]
    current = {result.id: outcome(result, 60.0) for _, result, _, _ in sent}
    bench.is_sound()
    above: dict[str, Counter[str]] = {}
    spans = {span["id"]: span for span in (*bench.spans.ended(), *bench.published.ended())}
    for span in spans.values():
        above.setdefault(span["parent"], Counter())[span["name"]] += 1
    for name, result, publisher, trace_id in sent:
        task = f"{bench.project.name}.{name}"
        (run,) = runs(spans, result.id)
        assert (run["name"], run["trace"], run["id"]) == (
            f"run/{task}",
            trace_id,
            current[result.id],
        )
        below = ["function", "thread", *(["child task"] if name == "run_async" else [])]
        assert above[run["id"]] == Counter(below)
        produced = spans[run["parent"]]
        assert (produced["name"], produced["kind"]) == (f"apply_async/{task}", "PRODUCER")
        assert (produced["parent"], produced["trace"]) == (publisher, trace_id)
    assert len([span for span in spans.values() if span["kind"] == "CONSUMER"]) == len(names)


def runs(spans: dict[str, Span], id: str) -> list[Span]:
    return [
        span
        for span in spans.values()
        if span["kind"] == "CONSUMER" and span["attributes"]["messaging.message.id"] == id
    ]


@pytest.mark.parametrize("pool", POOLS)
def test_each_of_many_inputs_has_its_span_below_its_publishers(
    make_bench: MakeBench, redis_broker: Broker, pool: str
) -> None:
    check_many(make_bench(redis_broker, pool=pool))


def test_each_of_many_inputs_from_rabbitmq_has_its_span_below_its_publishers(
    make_bench: MakeBench, rabbitmq_broker: Broker
) -> None:
    check_many(make_bench(rabbitmq_broker))


@pytest.mark.parametrize(
    ("node", "publisher"),
    [
        ("instrumentation", "instrumentation"),
        ("instrumentation", "traced"),
        ("traced", "instrumentation"),
    ],
)
@pytest.mark.parametrize("pool", POOLS)
def test_there_is_one_span_per_input_whoever_makes_it(
    make_bench: MakeBench, redis_broker: Broker, node: str, publisher: str, pool: str
) -> None:
    check_many(make_bench(redis_broker, node=node, publisher=publisher, pool=pool))


def test_a_span_tells_what_ran(make_bench: MakeBench, redis_broker: Broker) -> None:
    bench = make_bench(redis_broker)
    result, _, _ = bench.publish("plain")
    outcome(result)
    span = bench.spans.wait_for_input(result.id)
    name = f"{bench.project.name}.plain"
    assert (span["status"], span["events"]) == ("UNSET", [])
    assert span["attributes"] == {
        "messaging.system": "celery",
        "messaging.operation.name": "run",
        "messaging.operation.type": "process",
        "messaging.destination.name": bench.project.name,
        "messaging.message.id": result.id,
        "celery.action": "run",
        "celery.task_name": name,
        "celery.hostname": bench.node.name,
        "celery.retries": 0,
        "celery.state": "SUCCESS",
    }
    assert bench.parent(span)["attributes"] == {
        "messaging.system": "celery",
        "messaging.operation.name": "apply_async",
        "messaging.operation.type": "create",
        "messaging.destination.name": bench.project.name,
        "messaging.message.id": result.id,
        "celery.action": "apply_async",
        "celery.task_name": name,
    }


def test_each_way_to_fail_is_told(make_bench: MakeBench, redis_broker: Broker) -> None:
    bench = make_bench(redis_broker)
    sent = {
        (kind, way): bench.publish(f"fail_{way}", kind)[0]
        for kind in ("failure", "expected", "exit", "ignore", "reject", "hostile")
        for way in ("async", "sync")
    }
    told = {}
    for (kind, way), result in sent.items():
        span = bench.spans.wait_for_input(result.id)
        state, error = (span["attributes"].get(key) for key in ("celery.state", "error.type"))
        recorded = [fields["exception.type"] for _, fields in span["events"]]
        told[kind, way] = (state, span["status"], span["description"], error, recorded)
    crash = "celery_concurrent.errors.InputCrashError"
    for way in "async", "sync":
        failure = "FAILURE", "ERROR", "ValueError: broken", "ValueError", ["ValueError"]
        assert told["failure", way] == failure
        assert told["expected", way] == ("FAILURE", "UNSET", None, None, ["LookupError"])
        assert told["exit", way][:2] == ("FAILURE", "ERROR")
        assert told["exit", way][3:] == (crash, [crash])
        assert told["ignore", way] == ("IGNORED", "UNSET", None, None, [])
        assert told["reject", way] == ("REJECTED", "UNSET", None, None, [])
        assert told["hostile", way][:2] == ("FAILURE", "ERROR")
    (failed,) = bench.spans.of_input(sent["failure", "async"].id)
    assert "in fail_async" in failed["events"][0][1]["exception.stacktrace"]
    bench.is_sound()


@BOTH
@pytest.mark.parametrize("error", ["again", None])
def test_each_try_of_an_input_has_its_span_below_the_one_before(
    make_bench: MakeBench, redis_broker: Broker, kind: str, error: str | None
) -> None:
    bench = make_bench(redis_broker)
    result, _, trace_id = bench.publish(f"retry_{kind}", error)
    last = outcome(result)
    wait_for(lambda: len(bench.spans.of_input(result.id)) == 3)
    tries = bench.spans.of_input(result.id)
    assert tries[2]["id"] == last
    assert {span["trace"] for span in tries} == {trace_id}
    for before, after in itertools.pairwise(tries):
        assert bench.parent(bench.parent(after)) == before
        assert before["attributes"]["celery.state"] == "RETRY"
        assert "Retry in 0.3s" in before["attributes"]["celery.retry.reason"]
        recorded = [fields["exception.type"] for _, fields in before["events"]]
        expected = ("UNSET", []) if error is None else ("ERROR", ["KeyError"])
        assert (before["status"], recorded) == expected
    assert [span["attributes"]["celery.retries"] for span in tries] == [0, 1, 2]
    assert (tries[2]["status"], tries[2]["attributes"]["celery.state"]) == ("UNSET", "SUCCESS")
    bench.is_sound()


@pytest.mark.parametrize("pool", POOLS)
@BOTH
def test_what_ends_an_input_ends_its_span_and_is_told(
    make_bench: MakeBench, redis_broker: Broker, pool: str, kind: str
) -> None:
    bench = make_bench(redis_broker, pool=pool)
    revoked, _, _ = bench.publish(f"wait_{kind}")
    limited, _, _ = bench.publish(f"wait_{kind}", time_limit=1.0)
    warned, _, _ = bench.publish(f"wait_{kind}", soft_time_limit=1.0)
    sibling, _, _ = bench.publish(f"wait_{kind}")
    for result in revoked, limited, warned, sibling:
        bench.notes.wait(result.id, "started")
    revoked.revoke(terminate=True)
    told = {}
    for result in revoked, limited, warned:
        span = bench.spans.wait_for_input(result.id)
        assert span["status"] == "ERROR"
        state, error = (span["attributes"].get(key) for key in ("celery.state", "error.type"))
        told[result.id] = state, str(error).rpartition(".")[2], span["description"]
    assert told[revoked.id] == ("REVOKED", "TaskRevokedError", "it was revoked")
    limit = "it ran over its hard time limit of 1.0 s"
    assert told[limited.id] == ("FAILURE", "TimeLimitExceeded", limit)
    assert told[warned.id][:2] == ("FAILURE", "SoftTimeLimitExceeded")
    assert bench.spans.of_input(sibling.id) == []
    bench.node.signal(signal.SIGQUIT)  # a cold stop
    bench.node.wait()
    (stopped,) = bench.spans.of_input(sibling.id)
    assert stopped["status"] == "ERROR"
    assert "the node stops" in stopped["description"]
    assert "celery.state" not in stopped["attributes"]
    bench.is_sound()


@BOTH
def test_the_span_of_an_input_that_does_not_end_ends_with_its_node(
    make_bench: MakeBench, redis_broker: Broker, kind: str
) -> None:
    bench = make_bench(redis_broker)
    result, _, _ = bench.publish(f"wait_{kind}", True, time_limit=0.5)
    bench.notes.wait(result.id, "started")
    assert bench.node.wait(20.0) == 1  # concurrent_stuck_timeout
    (span,) = bench.spans.of_input(result.id)
    assert (span["attributes"]["celery.state"], span["status"]) == ("FAILURE", "ERROR")
    assert span["seconds"] > 2.0
    bench.is_sound()


@BOTH
def test_an_input_whose_lease_is_lost_has_a_span_in_each_node(
    make_bench: MakeBench, celery_node: StartNode, redis_broker: Broker, kind: str
) -> None:
    bench = make_bench(redis_broker)
    result, publisher, _ = bench.publish(f"wait_{kind}")
    bench.notes.wait(result.id, "started")
    other = celery_node(bench.project, env={"TRACED": "traced"})
    bench.node.signal(signal.SIGSTOP)
    try:
        wait_for(lambda: len(bench.notes.times(result.id, "started")) == 2, 30.0)
    finally:
        bench.node.signal(signal.SIGCONT)
    lost = bench.spans.wait_for_input(result.id, 20.0)
    assert (lost["status"], lost["description"]) == ("ERROR", LOST)
    assert lost["attributes"]["celery.hostname"] == bench.node.name
    result.revoke(terminate=True)
    wait_for(lambda: len(bench.spans.of_input(result.id)) == 2)
    revoked = bench.spans.of_input(result.id)[1]
    assert revoked["attributes"]["celery.hostname"] == other.name
    assert {bench.parent(span)["parent"] for span in (lost, revoked)} == {publisher}
    bench.is_sound()


@BOTH
def test_what_an_input_publishes_is_below_its_own_span(
    make_bench: MakeBench, redis_broker: Broker, kind: str
) -> None:
    bench = make_bench(redis_broker)
    result, _, trace_id = bench.publish(f"publish_{kind}")
    publishing, *ids = outcome(result)
    spans = [bench.spans.wait_for_input(id) for id in ids]
    assert [bench.parent(span)["parent"] for span in spans] == [publishing] * len(ids)
    assert {span["trace"] for span in spans} == {trace_id}
    bench.is_sound()


@pytest.mark.parametrize("publisher", ["traced", "instrumentation"])
def test_each_input_of_a_task_map_is_below_its_publishers_span(
    make_bench: MakeBench, redis_broker: Broker, publisher: str
) -> None:
    bench = make_bench(redis_broker, publisher=publisher)
    with tracer.start_as_current_span("publisher") as span:
        handles = task_map(bench.task("echo"), range(20)).publish()
    for handle in handles:
        outcome(handle)
    bench.is_sound()
    parents = {bench.spans.of_input(handle.id)[0]["parent"] for handle in handles}
    produced = [found for found in bench.published.ended() if found["id"] in parents]
    assert {found["parent"] for found in produced} == {span_id(span)}
    if publisher == "instrumentation":
        assert len(produced) == len(handles)
        return
    (for_all,) = produced  # at full speed: they go out together
    assert for_all["name"] == f"task_map/{bench.project.name}.echo"
    assert "messaging.message.id" not in for_all["attributes"]


def test_an_input_of_a_publisher_that_is_not_traced_begins_a_trace(
    make_bench: MakeBench, redis_broker: Broker
) -> None:
    bench = make_bench(redis_broker, publisher="")
    hostile = {"traceparent": ["not", "text"], "tracestate": 7, "baggage": "=;=,%%"}
    for headers in ({}, hostile, {"traceparent": "00-zz-1-1"}):
        result, _, _ = bench.publish("echo", 0, headers=headers)
        current = outcome(result)
        span = bench.spans.wait_for_input(result.id)
        assert (span["parent"], span["id"]) == (None, current)
    bench.is_sound()


def test_a_node_that_is_not_traced_makes_no_spans(
    make_bench: MakeBench, redis_broker: Broker
) -> None:
    bench = make_bench(redis_broker, node="")
    result, _, _ = bench.publish("run_async")
    assert outcome(result) == "0" * 16
    assert bench.spans.lines("started") == []


def test_stock_pools_and_eager_calls_leave_spans_to_the_instrumentation(
    make_bench: MakeBench, redis_broker: Broker
) -> None:
    bench = make_bench(redis_broker, "-c", "1", pool="prefork")
    result, _, _ = bench.publish("plain")
    assert outcome(result) == "0" * 16
    assert bench.spans.lines("started") == []
    with tracer.start_as_current_span("caller") as span:
        assert bench.task("echo").apply((0,)).get() == span_id(span)


@BOTH
def test_what_ends_an_input_ends_the_instrumentations_span(
    make_bench: MakeBench, redis_broker: Broker, kind: str
) -> None:
    bench = make_bench(redis_broker, node="instrumentation")
    revoked, _, _ = bench.publish(f"wait_{kind}")
    limited, _, _ = bench.publish(f"wait_{kind}", time_limit=1.0)
    stopped, _, _ = bench.publish(f"wait_{kind}")
    for result in revoked, limited, stopped:
        bench.notes.wait(result.id, "started")
    revoked.revoke(terminate=True)
    for result in revoked, limited:
        bench.spans.wait_for_input(result.id)
    bench.node.signal(signal.SIGQUIT)
    bench.node.wait()
    assert len(bench.spans.of_input(stopped.id)) == 1
    bench.is_sound()
