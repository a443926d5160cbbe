"""A chunk of messages on its way: written together, answered for together.

On Redis kombu's own batch puts them into one pipeline. On RabbitMQ they are written one after
the other on a channel of their own with publisher confirms, and what is waited for is the last
confirm. A connection that breaks leaves it open which of them the broker has; where the call's
``retry`` asks for it, these are sent again with the ids that they had, as by ``apply_async``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import takewhile
from typing import Any, Literal

from amqp import spec
from celery.utils.log import get_logger
from kombu import Producer
from kombu.exceptions import BatchPublishError
from kombu.transport import pyamqp
from kombu.transport import redis as kombu_redis

from celery_concurrent.bulk.template import Draft, Envelope

logger = get_logger(__name__)

#: Commands in one pipeline: a queue with an expiry has eleven per message.
PIPELINE = 10_000

Place = Literal["unsent", "uncertain", "published", "refused"]


class Chunk:
    """Some messages, and the place of each.

    A message is "unsent" at first, "uncertain" when it may have left, and stays so until the
    broker's answer makes it "published" or "refused". Only uncertain ones and unsent ones go out.

    Args:
        drafts: the messages.
    """

    def __init__(self, drafts: Sequence[Draft]) -> None:
        self._drafts = drafts
        self._places: dict[str, Place] = {draft.input_id: "unsent" for draft in drafts}

    def places(self) -> Iterable[tuple[str, Place]]:
        """The ids of the inputs, in their order, and where they are."""
        return self._places.items()

    def open(self) -> list[Draft]:
        """Those that the broker has not answered for."""
        return [d for d in self._drafts if self._places[d.input_id] in ("unsent", "uncertain")]

    def uncertain(self) -> list[str]:
        """The ids of those that may have left."""
        return [input_id for input_id, place in self._places.items() if place == "uncertain"]

    def write(self, input_id: str) -> None:
        """It may reach the broker from now on."""
        self._places[input_id] = "uncertain"

    def confirm(self, input_id: str) -> None:
        """The broker has it; what it has returned it confirms as well."""
        if self._places[input_id] != "refused":
            self._places[input_id] = "published"

    def refuse(self, input_id: str) -> None:
        """The broker does not take it."""
        self._places[input_id] = "refused"


Send = Callable[[Any, Envelope, Chunk], None]


def sender_for(producer: Any) -> Send | None:
    """How chunks go out on the producer's connection; None where only one by one is possible."""
    if type(producer) is not Producer:
        return None
    transport = producer.connection.transport
    if isinstance(transport, kombu_redis.Transport):
        return _to_redis if producer.supports_batch_publish else None
    return _to_rabbitmq if isinstance(transport, pyamqp.Transport) else None


def send(way: Send, producer: Any, envelope: Envelope, chunk: Chunk) -> None:
    """Send a chunk; the chunk tells what became of it, also after an error.

    Raises:
        kombu.exceptions.OperationalError: the connection is lost, and the retries are used up.
    """
    connection, policy = producer.connection, envelope.retry_policy

    def attempt() -> None:
        for entity in envelope.declare:
            producer.maybe_declare(entity, retry=envelope.retry, **policy)
        way(producer, envelope, chunk)

    def lost(error: Exception, _: float) -> None:
        if uncertain := chunk.uncertain():
            logger.warning(
                "lost the connection to the broker: %r; %d inputs (%s to %s) may have reached it, "
                "and are sent again with the same ids",
                error,
                len(uncertain),
                uncertain[0],
                uncertain[-1],
            )

    if not envelope.retry:
        attempt()
        return
    # As kombu's publish: to connect again is tried no longer than that either.
    connection.transport_options.update(policy)
    connection.ensure(producer, attempt, errback=lost, **policy)()


@contextmanager
def acquired(app: Any) -> Iterator[Any]:
    """A producer of the app's pool.

    After an error, or Ctrl-C, its connection may be in the middle of a frame, or the broker may
    not answer: to close it as the protocol asks could take forever, so it is dropped.
    """
    with app.producer_or_acquire() as producer:
        try:
            yield producer
        except BaseException:
            producer.connection.collect()
            raise


def _to_redis(producer: Any, envelope: Envelope, chunk: Chunk) -> None:
    channel, drafts = producer.channel, chunk.open()
    options = {
        "exchange": envelope.exchange,
        "routing_key": envelope.routing_key,
        "mandatory": envelope.mandatory,
        "immediate": envelope.immediate,
        "timeout": envelope.timeout,
        "confirm_timeout": envelope.confirm_timeout,
    }
    with closing(channel.create_publish_batch(max_size=PIPELINE)) as batch:
        try:
            for draft in drafts:
                chunk.write(draft.input_id)  # when there are many, the first leave now
                batch.publish(_message(channel, envelope, draft), **options)
            batch.flush()
        except BatchPublishError as error:
            # By what broke it is known whether to try again.
            raise (error.__cause__ or error) from None
    for draft in drafts:
        chunk.confirm(draft.input_id)


def _to_rabbitmq(producer: Any, envelope: Envelope, chunk: Chunk) -> None:
    connection, drafts = producer.connection, chunk.open()
    channel = connection.channel()  # the producer's own must not stay in confirm mode
    waiting = _confirming(channel, drafts, chunk)
    where = (0, envelope.exchange, envelope.routing_key, envelope.mandatory, envelope.immediate)
    with connection.connection.transport.having_timeout(envelope.timeout):
        for draft in drafts:
            message = _message(channel, envelope, draft)
            chunk.write(draft.input_id)
            # What basic_publish does after it has looked for what the broker says, which here
            # is heard once for all (amqp 5.4).
            channel.send_method(spec.Basic.Publish, "Bssbb", where, message)
    while waiting:
        connection.drain_events(timeout=envelope.confirm_timeout or envelope.timeout)
    channel.close()


def _confirming(channel: Any, drafts: Sequence[Draft], chunk: Chunk) -> dict[int, str]:
    """Put the channel into confirm mode; what is returned empties as the answers come."""
    # The broker counts what it gets on a channel, from 1.
    waiting = {tag: draft.input_id for tag, draft in enumerate(drafts, start=1)}

    def answered(settle: Callable[[str], None], tag: int, multiple: bool) -> None:
        tags = list(takewhile(tag.__ge__, waiting)) if multiple else [tag]
        for each in tags:
            settle(waiting.pop(each))

    def returned(_: Exception, exchange: str, routing_key: str, message: Any) -> None:  # noqa: ARG001  # amqp's
        chunk.refuse(message.properties["correlation_id"])

    channel.events["basic_ack"].add(partial(answered, chunk.confirm))
    channel.events["basic_nack"].add(partial(answered, chunk.refuse))
    channel.events["basic_return"].add(returned)
    channel.confirm_select()
    return waiting


def _message(channel: Any, envelope: Envelope, draft: Draft) -> Any:
    return channel.prepare_message(
        draft.payload,
        envelope.priority,
        envelope.content_type,
        envelope.content_encoding,
        # The channel writes into them, and they may have to go out again.
        draft.headers.copy(),
        draft.properties.copy(),
    )
