"""The spans of a traced process, as each starts and ends: in a file, for it may be a node's."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.instrumentation import celery as instrumentation
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.util._once import Once

from tests.services.waiting import wait_for

#: For the head of a project's source: ``trace_to(path, kind)`` traces this process.
#: What is written is a line for each start, and one for each end.
TRACING = """
import json, os
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

class SpanLines(SpanProcessor):
    def __init__(self, path):
        self.file = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    def on_start(self, span, parent_context=None):
        self.write(what="started", id=format(span.context.span_id, "016x"), name=span.name)

    def on_end(self, span):
        self.write(
            what="ended",
            id=format(span.context.span_id, "016x"),
            trace=format(span.context.trace_id, "032x"),
            parent=span.parent and format(span.parent.span_id, "016x"),
            name=span.name,
            kind=span.kind.name,
            status=span.status.status_code.name,
            description=span.status.description,
            attributes=dict(span.attributes),
            events=[[event.name, dict(event.attributes)] for event in span.events],
            seconds=(span.end_time - span.start_time) / 1e9,
        )

    def write(self, **fields):
        # One write, without a lock: it may be called on any thread, loop or hub.
        os.write(self.file, (json.dumps(fields, default=str) + "\\n").encode())

def trace_to(path):
    provider = TracerProvider()
    provider.add_span_processor(SpanLines(path))
    trace.set_tracer_provider(provider)
"""

Span = dict[str, Any]


class Spans:
    """What is in such a file; a line that is still being written is left out."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lines(self, what: str) -> list[Span]:
        """All lines of this kind, in order."""
        if not self._path.exists():
            return []
        lines = self._path.read_text().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return [line for line in found if line["what"] == what]

    def ended(self, name: str = "") -> list[Span]:
        """The spans that have ended, of this name or of all."""
        return [span for span in self.lines("ended") if not name or span["name"] == name]

    def of_input(self, id: str) -> list[Span]:
        """The spans of the input's runs, in the order in which they ended."""
        return [
            span
            for span in self.lines("ended")
            if span["kind"] == "CONSUMER" and span["attributes"].get("messaging.message.id") == id
        ]

    def wait_for_input(self, id: str, timeout: float = 10.0) -> Span:
        """The span of its first run, as soon as it has ended."""
        return wait_for(lambda: self.of_input(id), timeout, what=f"the span of {id}")[0]

    def wait_until_closed(self, timeout: float = 10.0) -> None:
        """Return when no span is open; none may have ended twice."""
        wait_for(lambda: not self.open(), timeout, what=lambda: f"open: {self.open()}")

    def open(self) -> list[str]:
        """Names of the spans that have started and not ended."""
        started = {line["id"]: line["name"] for line in self.lines("started")}
        ends = Counter(line["id"] for line in self.lines("ended"))
        assert max(ends.values(), default=1) == 1, f"ended twice: {ends.most_common(3)}"
        return [name for id, name in started.items() if id not in ends]


@contextmanager
def tracing_here(start: Callable[[], None], *, instrumented: bool) -> Iterator[None]:
    """Trace this process as ``start`` says, and not any more afterwards.

    The API allows one provider per process; what it keeps of it is put back, as its own tests do.
    """
    instrumentor: Any = instrumentation.CeleryInstrumentor
    instrumentor = instrumentor()
    before: Any = trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE
    trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE = None, Once()
    try:
        start()
        assert isinstance(trace.get_tracer_provider(), TracerProvider)
        if instrumented:
            instrumentor.instrument()
        yield
    finally:
        if instrumented:
            instrumentor.uninstrument()
        trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE = before
