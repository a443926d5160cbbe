"""From a wanted number of nodes to which ones start, stop and drain: pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from celery_concurrent.autoscaler.model import Node, NodeState


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """What a provider is to do.

    Args:
        start: how many nodes to start.
        cancel: names of starting nodes to stop; they hold no inputs.
        drain: names of ready nodes that take no new inputs, finish theirs and leave.
    """

    start: int = 0
    cancel: tuple[str, ...] = ()
    drain: tuple[str, ...] = ()


def actions_for(desired: int, nodes: Iterable[Node]) -> Actions:
    """How these nodes become ``desired`` ones.

    Draining nodes are leaving: they neither count nor come back. What is too many goes in the
    order of what it costs: first starting nodes, the youngest before those that are almost
    there, then ready ones, the emptiest first, and among equals the youngest.
    """
    starting, ready = [], []
    for node in nodes:
        if node.state is NodeState.STARTING:
            starting.append(node)
        elif node.state is NodeState.READY:
            ready.append(node)
    surplus = len(starting) + len(ready) - desired
    if surplus <= 0:
        return Actions(start=-surplus)
    starting.sort(key=lambda node: (-node.since, node.name))
    cancel = starting[:surplus]
    ready.sort(key=lambda node: (node.running, -node.since, node.name))
    drain = ready[: surplus - len(cancel)]
    return Actions(
        cancel=tuple(node.name for node in cancel), drain=tuple(node.name for node in drain)
    )
