"""What a policy gets to see: demand, and when it is unknown."""

from __future__ import annotations

from dataclasses import replace

from celery_concurrent.autoscaler.model import NodeState
from celery_concurrent.autoscaler.observe import Reading, blind_because, nodes_of, observation
from celery_concurrent.autoscaler.provider import NodeProcess, ProcessState
from celery_concurrent.autoscaler.reports import Report, Reports


def process(
    name: str, state: ProcessState = ProcessState.RUNNING, *, adopted: bool = False
) -> NodeProcess:
    return NodeProcess(name=name, queue="q", state=state, since=1.0, began=1.0, adopted=adopted)


def report(node: str, state: str = "ready", *, running: int = 0, heard_at: float = 10.0) -> Report:
    return Report(
        node=node,
        state=state,
        since=2.0,
        heard_at=heard_at,
        running=running,
        reserved=1,
        finished=5,
    )


def reading(
    *processes: NodeProcess, reports: tuple[Report, ...] = (), backlog: int | None = 3
) -> Reading:
    return Reading(
        now=10.0, backlog=backlog, processes=processes, reports={r.node: r for r in reports}
    )


def test_demand_is_what_waits_and_what_nodes_hold() -> None:
    seen, _ = observation(
        reading(process("a"), process("b"), reports=(report("a", running=4), report("b")))
    )
    assert seen.demand == 3 + 4 + 2
    assert seen.finished == 10
    assert seen.arrived == 19


def test_an_input_between_broker_and_node_is_demand() -> None:
    """It has left the backlog, and the node has not yet said so."""
    idle, busy = report("a", running=0), report("a", running=3)
    seen, transit = observation(reading(process("a"), reports=(idle,), backlog=3))
    taken, transit = observation(reading(process("a"), reports=(idle,), backlog=0), transit=transit)
    told, transit = observation(reading(process("a"), reports=(busy,), backlog=0), transit=transit)
    assert [look.demand for look in (seen, taken, told)] == [4, 4, 4]
    assert [look.arrived for look in (seen, taken, told)] == [9, 9, 9]
    assert transit.missing == 0


def test_a_node_that_is_to_leave_as_soon_as_it_is_there_is_no_capacity() -> None:
    """As one whose start has failed, though there is a process."""
    late = replace(process("a", ProcessState.PENDING), drained=True)
    seen, _ = observation(reading(late))
    assert (seen.live, seen.count(NodeState.DRAINING)) == (0, 1)


def test_what_a_draining_node_still_runs_asks_for_no_other_node() -> None:
    leaving = process("a", ProcessState.DRAINING)
    seen, _ = observation(reading(leaving, reports=(report("a", running=4),)))
    assert (seen.demand, seen.live) == (3, 0)
    assert seen.arrived == 3 + 4 + 1 + 5


def test_a_node_that_loads_or_has_said_nothing_is_starting() -> None:
    nodes = nodes_of(
        reading(
            process("a"), process("b"), process("c"), reports=(report("b", "starting"), report("c"))
        )
    )
    assert [node.state for node in nodes] == [
        *(NodeState.STARTING, NodeState.STARTING, NodeState.READY)
    ]


def test_a_node_that_drains_by_itself_is_no_capacity() -> None:
    (node,) = nodes_of(reading(process("a"), reports=(report("a", "draining"),)))
    assert node.state is NodeState.DRAINING


def test_an_ended_node_is_none() -> None:
    assert nodes_of(reading(process("a", ProcessState.ENDED))) == ()


def test_unknown_is_not_zero() -> None:
    assert observation(reading(backlog=None))[0].demand is None
    assert "broker" in str(blind_because(reading(backlog=None)))
    silent = reading(process("a"), reports=(report("a", heard_at=1.0),))
    assert observation(silent)[0].demand is None
    assert "no word from a" in str(blind_because(silent))
    deaf = Reading(now=10.0, backlog=0, processes=None, reports={})
    assert "engine" in str(blind_because(deaf))


def test_of_an_unknown_demand_the_broker_and_the_last_words_of_nodes_tell_a_part() -> None:
    silent, speaking = report("a", running=2, heard_at=1.0), report("b", running=4)
    seen, _ = observation(
        reading(process("a"), process("b"), reports=(silent, speaking), backlog=7)
    )
    assert (seen.demand, seen.known) == (None, 7 + 2 + 1 + 4 + 1)
    seen, _ = observation(reading(process("b"), reports=(speaking,), backlog=None))
    assert (seen.demand, seen.known) == (None, 4 + 1)


def test_a_starting_node_may_be_silent() -> None:
    loading = reading(process("a"), reports=(report("a", "starting", heard_at=1.0),))
    assert blind_because(loading) is None


def test_an_adopted_node_is_not_known_before_it_has_spoken() -> None:
    adopted = process("a", adopted=True)
    assert "no word from a" in str(blind_because(reading(adopted)))
    assert blind_because(reading(adopted, reports=(report("a"),))) is None
    assert blind_because(reading(adopted, reports=(report("a", "starting"),))) is None


def test_nobody_waits_for_the_word_of_a_draining_node() -> None:
    leaving = process("a", ProcessState.DRAINING, adopted=True)
    assert blind_because(reading(leaving)) is None
    assert blind_because(reading(leaving, reports=(report("a", heard_at=1.0),))) is None


def test_reports_tell_since_when_a_node_is_what_it_is() -> None:
    reports = Reports()
    reports.note({"hostname": "a", "state": "starting"}, now=1.0)
    reports.note({"hostname": "a", "state": "ready", "running": 2}, now=2.0)
    reports.note({"hostname": "a", "state": "ready", "running": 3}, now=3.0)
    last = reports.all()["a"]
    assert (last.since, last.heard_at, last.running) == (2.0, 3.0, 3)


def test_an_event_that_is_none_leaves_no_trace() -> None:
    reports = Reports()
    for event in ({}, {"hostname": "a"}, {"hostname": "a", "state": "odd"}, {"state": "ready"}):
        assert reports.note(event, now=1.0) is None
    odd = reports.note({"hostname": "a", "state": "ready", "running": "many", "slots": -1}, now=1.0)
    assert odd is not None
    assert (odd.running, odd.slots) == (0, 0)
    assert set(reports.all()) == {"a"}
