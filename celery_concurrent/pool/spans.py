"""A span of OpenTelemetry for each input, from its start to its end, below its publisher's.

It is started on the input's runner and made the current span of the input's own context, which
child tasks and threads inherit, and which is gone with the input: nothing is put back. What ends
it takes it from the input first, under the input's lock, so it ends once: when the tracer has
returned, or, for an input that does not end, with the node.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from celery import states
from celery.exceptions import Ignore, Reject, Retry, TaskRevokedError, TimeLimitExceeded
from celery.worker import state as worker_state

from celery_concurrent import tracing
from celery_concurrent.errors import InputCancellation
from celery_concurrent.pool.inputs import LOST, STOPPED, Input
from celery_concurrent.pool.outcomes import Outcome

if TYPE_CHECKING:
    from opentelemetry.trace import Span

#: Why an input is ended that another node is to run, when it is Celery that says so.
CANCELLED = "it was cancelled: the node stops, or has lost its broker"


def start(input: Input) -> None:
    """Start the input's span, where the process is traced; called in the input's context."""
    if tracing.API in sys.modules:
        _start(input)


def end(input: Input, outcome: Outcome | None) -> None:
    """End the input's span, if it has one; without an outcome the input has not ended."""
    if input.span is not None:
        _end(input, outcome)


@tracing.harmless
def _start(input: Input) -> None:
    tracer = tracing.tracer()
    if tracer is None:
        return
    from opentelemetry import context as contexts
    from opentelemetry.trace import SpanKind, set_span_in_context

    request = input.request
    parent = tracing.parent_of(request.message.headers or {})
    input.span = tracer.start_span(
        f"run/{input.name}", parent, kind=SpanKind.CONSUMER, attributes=_attributes(input)
    )
    contexts.attach(set_span_in_context(input.span, parent))


def _attributes(input: Input) -> dict[str, Any]:
    """What is known before it runs: samplers decide by it."""
    request = input.request
    found = {
        "messaging.system": tracing.SYSTEM,
        "messaging.operation.name": "run",
        "messaging.operation.type": "process",
        "messaging.destination.name": request.delivery_info.get("routing_key"),
        "messaging.message.id": input.id,
        "celery.action": "run",
        "celery.task_name": input.name,
        "celery.hostname": request.hostname,
        "celery.retries": request.request_dict.get("retries"),
    }
    return {name: value for name, value in found.items() if value is not None}


@tracing.harmless
def _end(input: Input, outcome: Outcome | None) -> None:
    with input.lock:
        span, input.span = input.span, None
    if span is None:
        return
    try:
        if not span.is_recording():
            return
        if outcome is None or input.ended is not None:
            _tell_of_end(span, input)
        else:
            _tell_of_outcome(span, input, outcome)
    finally:
        span.end()


def _tell_of_end(span: Span, input: Input) -> None:
    """It was ended from outside, or is left behind by its node."""
    reason = input.ended or STOPPED
    if reason in (LOST, STOPPED):  # another node runs it
        _fail(span, InputCancellation, reason)
    elif not input.dropped:
        _fail(span, TimeLimitExceeded, reason, states.FAILURE)
    elif _is_revoked(input.request):
        _fail(span, TaskRevokedError, reason, states.REVOKED)
    else:  # by a cold stop, or because Celery has lost its broker
        _fail(span, InputCancellation, CANCELLED)


def _is_revoked(request: Any) -> bool:
    """Whether it was revoked, by its id or by a stamp (Celery 5.6 and 5.7)."""
    stamps = request.request_dict.get("stamped_headers") or ()
    return request.id in worker_state.revoked or any(
        stamp in worker_state.revoked_stamps for stamp in stamps
    )


def _tell_of_outcome(span: Span, input: Input, outcome: Outcome) -> None:
    error = outcome.exception
    if error is None:
        span.set_attribute("celery.state", states.SUCCESS)
        return
    for kind, state in ((Reject, states.REJECTED), (Ignore, states.IGNORED)):
        if isinstance(error, kind):
            span.set_attribute("celery.state", state)
            return
    if isinstance(error, Retry):
        span.set_attribute("celery.state", states.RETRY)
        span.set_attribute("celery.retry.reason", _text(error))
        error = error.exc
    else:
        span.set_attribute("celery.state", states.FAILURE)
    if error is None:  # a retry that no error has caused
        return
    kind, text = type(error), _text(error)
    # What Celery logs and stores; the SDK's own look would be a second one at the traceback.
    recorded = {
        "exception.type": _name(kind),
        "exception.message": text,
        "exception.stacktrace": str(getattr(outcome.failure, "traceback", "")),
    }
    span.add_event("exception", recorded)
    if not isinstance(error, tuple(input.request.task.throws or ())):  # these are expected
        _fail(span, kind, f"{kind.__name__}: {text}")


def _fail(span: Span, kind: type[BaseException], reason: str, state: str | None = None) -> None:
    from opentelemetry.trace import Status, StatusCode

    if state is not None:
        span.set_attribute("celery.state", state)
    span.set_attribute("error.type", _name(kind))
    span.set_status(Status(StatusCode.ERROR, reason))


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # the user's own
        return f"<unprintable {type(error).__name__}>"


def _name(kind: type[BaseException]) -> str:
    module, name = kind.__module__, kind.__qualname__
    return name if module == "builtins" else f"{module}.{name}"
