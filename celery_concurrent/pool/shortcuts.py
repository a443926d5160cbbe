"""What Celery works out anew for every input, worked out once while a node runs.

Touched, in the node's process only, and put back at its end (Celery 5.6 and 5.7, kombu 5.7):

- kombu's JSON, where it is its own: it makes a ``json.JSONDecoder`` or encoder per text, and each
  input is four of them;
- ``Context._get_custom_headers``, which builds the set of Celery's own names per input;
- ``app.uses_utc_timezone``, which looks the time zone up per input, and ``app.now``, which takes a
  time through three zones per result;
- ``app.conf.find_value_for_key``, by which each result asks for ``result_extended``;
- its stacks of tasks and requests, see :mod:`.stacks`;
- the module of Celery's own ``Task.__call__`` in workers, which protects the stack of requests: by
  that the tracer takes it for a user's, and calls it per input where it would call ``run``. What
  it does for a request, :func:`.inputs.guarded` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache
from typing import Any

from celery import Celery
from celery._state import _task_stack
from celery.app import trace
from celery.app.task import Context, Task
from kombu import serialization
from kombu.utils import json as kombu_json

from celery_concurrent import quickjson
from celery_concurrent.origins import is_from
from celery_concurrent.pool import stacks
from celery_concurrent.sent import SENT_AT

#: What a request holds beside the user's own headers. When it was sent, is told anew with each try.
_OWN = frozenset({*vars(Context), "lang", "task", "argsrepr", "kwargsrepr", "compression", SENT_AT})


class Shortcuts:
    """Takes them for one app.

    Args:
        app: the Celery app of the node.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._custom_headers = Context._get_custom_headers
        self._protected_call: Any = None
        self._dates = False

    def install(self) -> None:
        """From now on."""
        _replace_json(kombu_json, quickjson)
        Context._get_custom_headers = custom_headers
        self._answer_at_once()
        stacks.quicken(self._stacks())
        if is_from(Task.__call__, trace):
            self._protected_call = Task.__call__
            self._protected_call.__module__ = Task.__module__

    def uninstall(self) -> None:
        """Put everything back."""
        _replace_json(quickjson, kombu_json)
        Context._get_custom_headers = self._custom_headers
        vars(self._app).pop("uses_utc_timezone", None)
        if self._dates:
            vars(self._app).pop("now", None)
        vars(self._app.conf).pop("find_value_for_key", None)
        stacks.restore(self._stacks())
        if self._protected_call is not None:
            self._protected_call.__module__ = trace.__name__

    def _answer_at_once(self) -> None:
        app, zone = self._app, self._app.timezone
        uses_utc = app.uses_utc_timezone()
        app.uses_utc_timezone = lambda: uses_utc
        # Not for an app that has a clock of its own.
        self._dates = type(app).now is Celery.now and "now" not in vars(app)
        if self._dates:
            app.now = lambda: datetime.now(zone)
        # Not as an attribute of it, which would be a setting.
        vars(app.conf)["find_value_for_key"] = cache(app.conf.find_value_for_key)

    def _stacks(self) -> list[Any]:
        return [_task_stack, *(task.request_stack for task in self._app.tasks.values())]


def _replace_json(old: Any, new: Any) -> None:
    """Have kombu read and write JSON by another module, unless it does by a third."""
    registry = serialization.registry
    encoder = registry._encoders.get("json")
    if encoder is None or encoder.encoder is not old.dumps:
        return
    if registry._decoders.get(encoder.content_type) is not old.loads:
        return
    registry.register("json", new.dumps, new.loads, encoder.content_type, encoder.content_encoding)


def custom_headers(_context: Context, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
    """The headers of a request that are the user's; None where there are none."""
    return {
        name: value for name, value in dict(*args, **kwargs).items() if name not in _OWN
    } or None


def decode_quickly(message: Any) -> None:
    """Decode a body of plain JSON, and leave every other to kombu, which finds it decoded then.

    Touches ``Message._decoded_cache`` (kombu 5.7).
    """
    decoder = serialization.registry._decoders.get(message.content_type)
    if decoder is quickjson.loads and message.accept and message.content_type in message.accept:
        with suppress(ValueError):  # kombu says what is wrong with it
            message._decoded_cache = _decoded(message.body)


#: What a call without links, chain and chord embeds (Celery 5.6 and 5.7), and how its body ends.
_NOTHING_EMBEDDED: dict[str, Any] = dict.fromkeys(("callbacks", "errbacks", "chain", "chord"))
_END = f", {quickjson.dumps(_NOTHING_EMBEDDED)}]"


def _decoded(body: Any) -> Any:
    """What a body says; the names in what most bodies end with are made once for all.

    ``[args, kwargs`` is followed by that end exactly when ``[args, kwargs]`` is JSON, and a list
    of two.
    """
    text = body if isinstance(body, str) else bytes(body).decode()
    if text.endswith(_END):
        call = quickjson.loads(f"{text[: -len(_END)]}]")
        if type(call) is list and len(call) == 2:
            return [*call, _NOTHING_EMBEDDED.copy()]
    return quickjson.loads(text)


#: What cannot be changed by who is given it.
_UNCHANGING = frozenset({str, int, float, bool, type(None)})


def decoded_once(request: Any, args: Sequence[Any]) -> tuple[Any, ...]:
    """What Celery's tracer is called with: the decoded body, where a second look changes nothing.

    Celery decodes a body for the request, and again for the function, so that what the function
    does to its arguments does not show in the request. Where all are plain values it cannot do
    anything to them.

    Args:
        request: Celery's.
        args: the task's name, the id, the request's fields, the body, its content type and
            encoding, as Celery's requests pass them to pools (5.6 and 5.7).
    """
    message = request.message
    name, id, fields, body, content_type, _ = args
    # A request class of the user's own may have made another body of the message's.
    if not content_type or body is not message.body:
        return tuple(args)
    payload = message.payload
    if type(payload) is not list or len(payload) != 3:
        return tuple(args)
    positional, named, embedded = payload
    for values in (positional, named.values(), (embedded or {}).values()):
        if not _UNCHANGING.issuperset(map(type, values)):
            return tuple(args)
    # The embedded options are read by the tracer, and by nobody else.
    return name, id, fields, ([*positional], {**named}, embedded), None, None
