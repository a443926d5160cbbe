"""OpenTelemetry where the process has it: whether it is on, and the publishers' side.

Nothing of it is imported here before the process has done so itself, and nothing is traced before
it has been given a tracer provider. Where ``opentelemetry-instrumentation-celery`` is at work,
it traces: this package does nothing then, for spans of both would be two for one input.

The publisher's span of a message begins and ends at once (the semantic conventions' "create"):
it cannot be left open by a broker that does not answer. The spans of inputs are made in
:mod:`celery_concurrent.pool.spans`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final, ParamSpec

from celery.utils.log import get_logger

from celery_concurrent import sent

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer, TracerProvider

P = ParamSpec("P")

logger = get_logger(__name__)

API: Final = "opentelemetry.trace"
INSTRUMENTATION: Final = "opentelemetry.instrumentation.celery"
#: The value of ``messaging.system``.
SYSTEM: Final = "celery"

#: Whether one message is made that stands for many.
_for_many: ContextVar[bool] = ContextVar("celery_concurrent_for_many", default=False)
#: Names of what has failed, and was told of.
_failed: set[str] = set()


def tracer() -> Tracer | None:
    """What makes this package's spans; None where it is not to make any."""
    api = sys.modules.get(API)
    # Another thread may be about to import it.
    get_provider = getattr(api, "get_tracer_provider", None)
    if api is None or get_provider is None:
        return None
    provider = get_provider()
    if isinstance(provider, (api.ProxyTracerProvider, api.NoOpTracerProvider)):
        return None
    return None if _is_instrumented() else _tracer_of(provider)


@functools.lru_cache(maxsize=1)
def _tracer_of(provider: TracerProvider) -> Tracer:
    try:
        ours = version("celery-concurrent")
    except PackageNotFoundError:
        ours = None
    return provider.get_tracer("celery_concurrent", ours)


def _is_instrumented() -> bool:
    instrumentor = getattr(sys.modules.get(INSTRUMENTATION), "CeleryInstrumentor", None)
    return instrumentor is not None and bool(instrumentor().is_instrumented_by_opentelemetry)


def harmless(function: Callable[P, None]) -> Callable[P, None]:
    """Have an error of tracing told, once, and nothing else: nothing is to fail by it."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except Exception:
            if function.__qualname__ not in _failed:
                _failed.add(function.__qualname__)
                logger.exception("tracing failed; this is told once")

    return call


def parent_of(headers: dict[str, Any]) -> Context:
    """The context that a publisher has put into a message's headers; an empty one for none."""
    from opentelemetry.context import Context
    from opentelemetry.propagate import extract

    # Propagators expect text, and these headers are anybody's.
    text = {name: value for name, value in headers.items() if isinstance(value, str)}
    return extract(text, context=Context())


@contextmanager
def for_many() -> Iterator[None]:
    """What is published in here is one message that stands for many."""
    token = _for_many.set(True)
    try:
        yield
    finally:
        _for_many.reset(token)


def on_publish(
    sender: Any = None,
    headers: dict[str, Any] | None = None,
    routing_key: str | None = None,
    **_: Any,
) -> None:
    """Put a context into a message's headers: of its publisher's span, below the current one."""
    if API in sys.modules and headers is not None:
        _publish(str(sender), headers, routing_key)


@harmless
def _publish(name: str, headers: dict[str, Any], routing_key: str | None) -> None:
    ours = tracer()
    if ours is None:
        return
    from opentelemetry.propagate import inject
    from opentelemetry.trace import SpanKind, set_span_in_context

    action = "task_map" if _for_many.get() else "apply_async"
    attributes = {
        "messaging.system": SYSTEM,
        "messaging.operation.name": action,
        "messaging.operation.type": "create",
        "celery.action": action,
        "celery.task_name": name,
    }
    if routing_key is not None:
        attributes["messaging.destination.name"] = routing_key
    if action == "apply_async" and "id" in headers:
        attributes["messaging.message.id"] = headers["id"]
    span = ours.start_span(f"{action}/{name}", kind=SpanKind.PRODUCER, attributes=attributes)
    try:
        inject(headers, context=set_span_in_context(span))
    finally:
        span.end()


def install() -> None:
    """Have this process's messages carry their publishers' contexts; twice changes nothing."""
    sent.listen(on_publish, uid="celery-concurrent-tracing")
