"""Which closings of a channel count as a lost connection."""

from __future__ import annotations

import pytest
from amqp.exceptions import NotFound, PreconditionFailed, RecoverableConnectionError

from celery_concurrent.rabbitmq.closures import closed_channels_as_lost_connections


@pytest.mark.parametrize("method", [(60, 80), (0, 0), None], ids=str)
def test_what_is_closed_while_a_node_consumes_is_lost(method: tuple[int, int] | None) -> None:
    text = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out"
    with (
        pytest.raises(RecoverableConnectionError, match="acknowledgement on channel 1 timed out"),
        closed_channels_as_lost_connections(),
    ):
        raise PreconditionFailed(text, method, reply_code=406)


@pytest.mark.parametrize(
    "error",
    [
        PreconditionFailed("inequivalent arg 'durable' for queue", (50, 10), reply_code=406),
        PreconditionFailed("inequivalent arg 'type' for exchange", (40, 10), reply_code=406),
        PreconditionFailed("consumer arguments", (60, 20), reply_code=406),
        NotFound("no queue", (50, 10), reply_code=404),
    ],
    ids=repr,
)
def test_an_error_for_good_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)), closed_channels_as_lost_connections():
        raise error
