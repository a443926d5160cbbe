"""What stands in kombu's lists in Redis: a JSON object per message, with its body inside."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from kombu.utils.encoding import bytes_to_str

from celery_concurrent.quickjson import loads, loads_plain

#: From so many on they are read as one text: names that stand in all of them are then made once,
#: which takes less time, and 1 kB less for each message that waits.
MANY = 8

#: Characters of a text that may be in several messages, rather than a body or arguments.
LONGEST_SHARED = 100

#: Bytes of a message, on the average, from which on its body is not searched.
LONG = 4_000

_TAG = re.compile(rb'"delivery_tag":\s*"([^"]{1,100})"')

#: How kombu's messages begin; the body follows, in base64 as a rule, which has no quotes.
_BEGIN = b'{"body": "'


def read(messages: Sequence[bytes]) -> Sequence[dict[str, Any] | None]:
    """The envelopes of these messages, in order; None for what is none."""
    together = _read_together(messages) if len(messages) >= MANY else None
    if together is None:
        return [_read(message) for message in messages]
    _share_texts(together)
    return together


def _share_texts(envelopes: Iterable[dict[str, Any]]) -> None:
    """Keep one text of those that are equal: the task's name in all, an input's id thrice in one.

    Of a message that waits they are half of what it takes.
    """
    kept: dict[str, str] = {}
    keep = kept.setdefault
    for envelope in envelopes:
        for part in (envelope, envelope["properties"], envelope.get("headers")):
            if type(part) is dict:
                for name, value in part.items():
                    if type(value) is str and len(value) <= LONGEST_SHARED:
                        part[name] = keep(value, value)


def _read_together(messages: Sequence[bytes]) -> list[dict[str, Any]] | None:
    """Their envelopes, read at once; None where not every message is one by itself."""
    with suppress(Exception):
        text = f"[{','.join(map(bytes_to_str, messages))}]"
        if len(text) > LONG * len(messages):
            ends = [_after_body(message) for message in messages]
            has_types = any(b"__type__" in end or b"\\u00" in end for end in ends)
            envelopes: list[Any] = loads(text) if has_types else loads_plain(text)
        else:
            ends, envelopes = [*messages], loads(text)
        # Two halves of a message would be one here. By its tag each is known to be its own.
        if len(envelopes) == len(messages) and all(
            envelope["properties"]["delivery_info"] is not None
            and envelope["properties"]["delivery_tag"].encode() in end
            for envelope, end in zip(envelopes, ends, strict=True)
        ):
            return envelopes
    return None


def _after_body(message: bytes) -> bytes:
    """What is not known to be of the body, a text without types that may be long."""
    return message[message.index(b'"', len(_BEGIN)) :] if message.startswith(_BEGIN) else message


def tags_in(message: bytes) -> list[str]:
    """What may be the tag of a message that cannot be read."""
    return [bytes_to_str(tag) for tag in _TAG.findall(message)[-1:]]


def _read(message: bytes) -> dict[str, Any] | None:
    # The second time without types, for one may be registered in another program only.
    for load in (loads, json.loads):
        with suppress(Exception):
            envelope = load(bytes_to_str(message))
            # Both are there, and the tag may be a key.
            hash(envelope["properties"]["delivery_tag"]), envelope["properties"]["delivery_info"]
            headers = envelope.get("headers")
            if isinstance(headers, dict):
                envelope["headers"] = {sys.intern(name): value for name, value in headers.items()}
            return dict(envelope)
    return None
