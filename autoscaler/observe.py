"""From what the broker, the engine and the nodes say to what a policy looks at: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from celery_concurrent.autoscaler.model import Node, NodeState, Observation
from celery_concurrent.autoscaler.provider import NodeProcess, ProcessState
from celery_concurrent.autoscaler.reports import Report
from celery_concurrent.autoscaler.transit import Transit

NOTHING_SEEN = Transit()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one look at a fleet brought.

    Args:
        now: when, on the loop's clock.
        backlog: inputs in the broker; None when it did not answer.
        processes: the fleet's nodes as the engine sees them; None when it did not answer.
        reports: by node, what they last said.
    """

    now: float
    backlog: int | None
    processes: tuple[NodeProcess, ...] | None
    reports: Mapping[str, Report]


def nodes_of(reading: Reading) -> tuple[Node, ...]:
    """The fleet's living nodes.

    One that has said nothing yet is starting, one that loads its model says so itself.
    """
    return tuple(
        [_node(process, reading.reports.get(process.name)) for process in _living(reading)]
    )


def observation(
    reading: Reading, *, finished_before: int = 0, transit: Transit = NOTHING_SEEN
) -> tuple[Observation, Transit]:
    """What the policy is to see, and what the next observation wants to know of it.

    What draining nodes still run asks for no other node, so it counts to no demand.

    Args:
        reading: as above.
        finished_before: inputs that nodes have finished which are gone.
        transit: what the observation before this one gave.
    """
    nodes = nodes_of(reading)
    living = [reading.reports[node.name] for node in nodes if node.name in reading.reports]
    leaving = {node.name for node in nodes if node.state is NodeState.DRAINING}
    staying = [report for report in living if report.node not in leaving]
    finished = finished_before + sum(report.finished for report in living)
    running = sum(report.running for report in staying)
    reserved = sum(report.reserved for report in staying)
    backlog = None if blind_because(reading) else reading.backlog
    if backlog is not None:
        held = sum(report.running + report.reserved for report in living)
        transit = transit.after(finished + backlog + held, reading.now)
    seen = Observation(
        now=reading.now,
        backlog=backlog,
        reserved=reserved + transit.missing,
        running=running,
        nodes=nodes,
        finished=finished,
        arrived=None if backlog is None else transit.seen,
        known=(reading.backlog or 0) + reserved + running,
    )
    return seen, transit


def blind_because(reading: Reading) -> str | None:
    """Why the demand is unknown, for people; None when it is known."""
    if reading.processes is None:
        return "the engine does not answer"
    if reading.backlog is None:
        return "the broker does not answer"
    silent = [process.name for process in _living(reading) if _is_silent(process, reading)]
    if silent:
        return f"no word from {_some(silent)}"
    return None


def _node(process: NodeProcess, report: Report | None) -> Node:
    state = _state(process, report)
    return Node(
        name=process.name,
        state=state,
        since=report.since if report and state is NodeState.READY else process.since,
        running=report.running if report else 0,
        adopted=process.adopted,
    )


def _state(process: NodeProcess, report: Report | None) -> NodeState:
    leaving = process.drained or process.state is ProcessState.DRAINING
    if leaving or (report and report.state == "draining"):
        return NodeState.DRAINING
    if report is None or report.state == "starting":
        return NodeState.STARTING
    return NodeState.READY


def _living(reading: Reading) -> list[NodeProcess]:
    return [process for process in reading.processes or () if process.lives]


def _is_silent(process: NodeProcess, reading: Reading) -> bool:
    """Whether the node may run inputs that nobody knows of."""
    report = reading.reports.get(process.name)
    state = _state(process, report)
    if state is NodeState.DRAINING:
        return False  # what it runs counts to no demand
    if report is None:
        # A node of our own has not spoken because it is still starting. One that was adopted
        # may run inputs for long: before it has spoken it is not known to be starting.
        return process.adopted
    if state is NodeState.STARTING:
        return False  # it may be busy with an import for longer than that
    return report.is_silent(reading.now)


def _some(names: Iterable[str], most: int = 3) -> str:
    several = list(names)
    told = ", ".join(several[:most])
    return told if len(several) <= most else f"{told} and {len(several) - most} more"
