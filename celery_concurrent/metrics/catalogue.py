"""What is exposed: each metric's name, kind and labels, and what it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

#: Before each name.
PREFIX: Final = "celery_concurrent_"


@dataclass(frozen=True, slots=True)
class About:
    """A metric, less its values.

    Args:
        name: less :data:`PREFIX`; a counter's ends in ``_total``.
        kind: as Prometheus has it.
        labels: their names.
        text: one line for people.
    """

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    labels: tuple[str, ...]
    text: str


_QUEUE: Final = ("queue",)
_TASK: Final = ("task",)
_DEVICE: Final = ("host", "device", "name")

#: In the order in which they are exposed.
CATALOGUE: Final = (
    About("fleet_demand", "gauge", _QUEUE, "Inputs in the broker and in nodes; none if unknown."),
    About("fleet_backlog", "gauge", _QUEUE, "Inputs that wait in the broker; none if unknown."),
    About("fleet_reserved", "gauge", _QUEUE, "Inputs that nodes have fetched and not started."),
    About("fleet_running", "gauge", _QUEUE, "Inputs that hold a slot."),
    About("fleet_slots", "gauge", _QUEUE, "Inputs that ready nodes can run at once."),
    About("fleet_target_inputs", "gauge", _QUEUE, "Inputs per node that are aimed at."),
    About("fleet_max_inputs", "gauge", _QUEUE, "Inputs that one node runs at once at the most."),
    About("fleet_nodes", "gauge", ("queue", "state"), "Nodes by state."),
    About("fleet_desired_nodes", "gauge", _QUEUE, "Nodes of the last decision."),
    About("fleet_min_nodes", "gauge", _QUEUE, "Nodes that stay without any demand."),
    About("fleet_max_nodes", "gauge", _QUEUE, "Nodes that there are at the most."),
    About("fleet_state", "gauge", ("queue", "state"), "1 for the state the fleet is in, or 0."),
    About("fleet_crashes", "gauge", _QUEUE, "Nodes that have crashed in a row."),
    About("fleet_autoscaler_up", "gauge", _QUEUE, "1, or 0 when an autoscaler of it is silent."),
    About("fleet_cpu_cores", "gauge", _QUEUE, "Processor cores that the nodes keep busy."),
    About("fleet_memory_bytes", "gauge", _QUEUE, "Memory of the nodes' processes."),
    About("fleet_idle_slot_seconds_total", "counter", _QUEUE, "Seconds of slots without input."),
    About("fleet_decisions_total", "counter", ("queue", "cause"), "Changes of desired nodes."),
    About("node_startup_seconds", "histogram", _QUEUE, "From a node's begin until it is ready."),
    About("task_wait_seconds", "histogram", _TASK, "From an input's sending or ETA to its start."),
    About("task_run_seconds", "histogram", _TASK, "From an input's start to its end."),
    About("task_outcomes_total", "counter", ("task", "outcome"), "Inputs that have ended."),
    About("device_up", "gauge", _DEVICE, "1, or 0 for a device that is lost or does not answer."),
    About("device_memory_free_bytes", "gauge", _DEVICE, "Memory that is free there."),
    About("device_memory_total_bytes", "gauge", _DEVICE, "Memory that the device has."),
    About("device_utilisation_ratio", "gauge", _DEVICE, "How busy it is, 0 to 1."),
)
