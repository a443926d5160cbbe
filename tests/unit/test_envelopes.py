"""Reading what stands in kombu's lists in Redis, many at once."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_concurrent.redis import envelopes
from celery_concurrent.redis.envelopes import LONG, MANY


def message(tag: str, **more: Any) -> bytes:
    properties = {"delivery_tag": tag, "delivery_info": {"exchange": "", "routing_key": "q"}}
    return json.dumps(
        {"body": "", "headers": {"id": tag}, "properties": properties, **more}
    ).encode()


def tags(messages: list[bytes]) -> list[str | None]:
    return [
        None if envelope is None else envelope["properties"]["delivery_tag"]
        for envelope in envelopes.read(messages)
    ]


NONE = [b"", b"{", b"1", b"[]", b"{}", b"\xff", b'{"properties": {}}', b'{"properties": 1}']


@given(st.lists(st.none() | st.sampled_from(NONE), max_size=3 * MANY))
def test_each_message_is_read_and_what_is_none_is_none(drawn: list[bytes | None]) -> None:
    messages = [message(f"tag-{i}") if each is None else each for i, each in enumerate(drawn)]
    expected = [f"tag-{i}" if each is None else None for i, each in enumerate(drawn)]
    assert tags(messages) == expected


@pytest.mark.parametrize("body", ["", "eA==" * LONG])
def test_types_in_headers_are_read_whatever_the_body_is(body: str) -> None:
    hexed = {"__type__": "uuid", "__value__": {"hex": "0" * 32}}
    escaped = json.dumps({"own": hexed}).replace("__type__", r"\u005f_type__")
    messages = [
        *(message(str(i), body=body, more={"own": hexed}) for i in range(MANY)),
        message("escaped", body=body).replace(
            b'"headers": {', b'"headers": ' + escaped[:-1].encode() + b", "
        ),
    ]
    found = envelopes.read(messages)
    assert [each["more"]["own"] for each in found[:-1] if each] == [uuid.UUID(int=0)] * MANY
    assert found[-1] is not None
    assert found[-1]["headers"]["own"] == uuid.UUID(int=0)


def test_a_body_that_is_no_base64_is_read_as_it_is() -> None:
    body = '"__type__": {"quoted": "\\u00e9"}' * LONG
    found = envelopes.read([message(str(i), body=body) for i in range(MANY)])
    assert [each["body"] for each in found if each] == [body] * MANY


def test_halves_that_make_a_message_together_are_none() -> None:
    """Their number is right, and each is read as one that it is not."""
    whole = message("a")
    first, second = whole[:20], whole[20:].lstrip(b", ")
    two = message("b") + b"," + message("c")
    rest = [message(str(i)) for i in range(MANY)]
    assert tags([first, second, two, *rest]) == [None, None, None, *map(str, range(MANY))]


def test_many_messages_share_the_names_of_their_fields() -> None:
    found = envelopes.read([message(str(i), own=i) for i in range(MANY)])
    names = [{id(name) for name in each} for each in found if each is not None]
    assert names == [names[0]] * MANY


def test_few_messages_share_them_with_all_others() -> None:
    first, second = (envelopes.read([message(tag)])[0] for tag in "ab")
    assert first is not None
    assert second is not None
    ids = [[id(name) for name in each["headers"]] for each in (first, second)]
    assert ids[0] == ids[1]


def test_many_messages_share_texts_that_are_equal() -> None:
    messages = []
    for number in range(MANY):
        id = str(uuid.uuid4())
        headers = {"id": id, "root_id": id, "task": "app.resize", "argsrepr": f"({number},)"}
        messages.append(message(id, headers=headers))
    first, *others = envelopes.read(messages)
    assert first is not None
    headers = first["headers"]
    assert headers["id"] is headers["root_id"] is first["properties"]["delivery_tag"]
    assert all(other and other["headers"]["task"] is headers["task"] for other in others)
    assert [json.loads(each)["headers"] for each in messages] == [
        each["headers"] for each in (first, *others) if each is not None
    ]


@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=3),
            st.text(max_size=3) | st.none() | st.integers() | st.lists(st.text(max_size=2)),
        ),
        min_size=MANY,
        max_size=MANY + 2,
    )
)
def test_sharing_changes_no_header(drawn: list[dict[str, Any]]) -> None:
    messages = [message(f"tag-{i}", headers=headers) for i, headers in enumerate(drawn)]
    assert [each and each["headers"] for each in envelopes.read(messages)] == drawn


@pytest.mark.parametrize("beside", [0, MANY])
def test_types_of_other_programs_stay_as_they_are_written(beside: int) -> None:
    """And what is beside such a message is read, too."""
    money = {"__type__": "money", "__value__": 7}
    odd = message("odd", headers={"id": "odd", "price": money})
    read = envelopes.read([odd, *(message(f"tag-{i}") for i in range(beside))])
    assert all(each is not None for each in read)
    assert read[0] is not None
    assert read[0]["headers"]["price"] == money


def test_a_tag_is_found_in_what_cannot_be_read() -> None:
    assert envelopes.tags_in(b"\xff" + message("tag")) == ["tag"]
    assert envelopes.tags_in(b"nothing") == []
