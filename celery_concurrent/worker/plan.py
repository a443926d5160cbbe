"""Which queues a node fetches together, and how much: pure, from the tasks' routes.

Queues whose inputs draw from the same slots belong together: they share a *lane*, one channel
of the broker's connection, with its own limit. Queues with slots of their own have a lane of
their own, so that a full one never holds up another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """Queues that are fetched together.

    Args:
        queues: their names, in the order in which the worker was given them.
        groups: the groups of tasks whose inputs they bring.
    """

    queues: tuple[str, ...]
    groups: frozenset[str]


def lanes(queues: Sequence[str], groups: Mapping[str, Iterable[str]], plain: str) -> list[Lane]:
    """Put queues that share a group into one lane.

    Args:
        queues: what the worker consumes.
        groups: by queue, the groups of the tasks that are routed to it.
        plain: the group of a queue to which no task is routed.
    """
    made: list[Lane] = []
    for queue in queues:
        own = frozenset(groups.get(queue, ())) or frozenset({plain})
        related = [lane for lane in made if lane.groups & own]
        made = [lane for lane in made if lane not in related]
        made.append(
            Lane(
                queues=(*(name for lane in related for name in lane.queues), queue),
                groups=own.union(*(lane.groups for lane in related)),
            )
        )
    order = {queue: place for place, queue in enumerate(queues)}
    return sorted(made, key=lambda lane: order[lane.queues[0]])
