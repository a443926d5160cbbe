"""Waiting for a fleet of a certain size."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from celery_concurrent.demo.errors import DemoError, FleetError
from celery_concurrent.demo.fleet import Fleet, Node
from celery_concurrent.demo.watch import await_fleet


def fleet(*states: str, desired: int = 2) -> Fleet:
    nodes = (Node(name=f"n{i}", state=s, running=0, device="-") for i, s in enumerate(states))
    return Fleet(desired=desired, nodes=tuple(nodes))


def test_fleet_is_awaited_until_it_has_its_nodes_and_no_others() -> None:
    looks: Iterator[Fleet | None] = iter(
        [
            None,
            fleet("ready", "starting"),
            fleet("ready", "ready", "draining"),
            fleet("ready", "ready", desired=1),
            fleet("ready", "ready"),
        ]
    )
    await_fleet(lambda: next(looks), 2, within=10.0, check=lambda: None)
    assert list(looks) == []


@pytest.mark.parametrize(
    ("seen", "told"), [(None, "not answered"), (fleet("ready", "starting"), "1 ready, 1 starting")]
)
def test_fleet_that_does_not_come_to_its_size_is_told(seen: Fleet | None, told: str) -> None:
    with pytest.raises(FleetError, match=f"the fleet has {told} after 0 s, and not 2 ready"):
        await_fleet(lambda: seen, 2, within=0.0, check=lambda: None)


def test_check_ends_the_waiting() -> None:
    def check() -> None:
        raise DemoError("interrupted")

    with pytest.raises(DemoError, match="interrupted"):
        await_fleet(lambda: None, 2, within=10.0, check=check)
