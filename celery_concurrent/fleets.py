"""The fleets of an app: one per queue with concurrent tasks.

A fleet counts its queue as one thing, so what its tasks say is put together here: their limits
add up, as the slots of a node do, and their knobs are merged. Where that hides a difference,
:func:`findings` tells of it, with the remedy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, cast

from celery import Celery

from celery_concurrent.errors import ConfigurationError
from celery_concurrent.knobs import Knobs, Layer, merged, nearest
from celery_concurrent.limits import Limits
from celery_concurrent.marks import Mark, mark_of, scaling_of
from celery_concurrent.routing import queue_of, route_of
from celery_concurrent.services import services_of

#: The app setting: knobs by queue.
SETTING: Final = "concurrent_fleets"
#: Where knobs come from that were set at run time.
OVERRIDE: Final = "override"

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_REMEDY: Final = (
    "give each a queue of its own, by @app.task(queue=...) or "
    'task_routes = ["celery_concurrent.routing.queue_per_task"]'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The nodes that serve one queue.

    Args:
        queue: its name.
        tasks: the names of its concurrent tasks, in order.
        limits: those of its functions and services together, as a node has them.
        layers: what was said of it, the weakest first.

    Raises:
        ConfigurationError: the layers do not go together.
    """

    queue: str
    tasks: tuple[str, ...]
    limits: Limits
    layers: tuple[Layer, ...] = ()

    def __post_init__(self) -> None:
        merged(self.queue, self.layers)

    @property
    def knobs(self) -> Knobs:
        """What the autoscaler keeps to."""
        return merged(self.queue, self.layers)

    def source_of(self, knob: str) -> str:
        """Where a knob's value was said, for people; "default" where nowhere."""
        places = [layer.source for layer in self.layers if knob in layer.values]
        return places[-1] if places else "default"

    def overridden(self, values: Mapping[str, Any]) -> Fleet:
        """The fleet with these overrides in the place of those that it has.

        Raises:
            ConfigurationError: a value is wrong, or does not go with the others.
        """
        kept = tuple(layer for layer in self.layers if layer.source != OVERRIDE)
        return replace(self, layers=(*kept, Layer.of(self.queue, OVERRIDE, values)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something about an app's fleets that its owner should know.

    Args:
        queue: which fleet it is about.
        text: a sentence, with the remedy.
    """

    queue: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """What shares slots: a function or a service, with the tasks of it that a queue brings."""

    name: str
    limits: Limits
    scaling: Mapping[str, Any]
    tasks: tuple[str, ...]


def fleets_of(
    app: Celery,
    *,
    options: Mapping[str, Any] = _NOTHING,
    overrides: Mapping[str, Mapping[str, Any]] = _NOTHING,
) -> dict[str, Fleet]:
    """The fleets of an app by queue. Its modules must have been imported.

    Args:
        app: the Celery app.
        options: knobs of the command line, for all fleets; None for those that are not given.
        overrides: knobs that were set at run time, by queue; queues that the app does not have
            any more do not count.

    Raises:
        ConfigurationError: naming the fleet, the knob, its value and the remedy.
    """
    settings = _settings(app)
    queues = _groups_by_queue(app, queue_of)
    for queue in settings:
        if queue not in queues:
            raise ConfigurationError(
                f"{SETTING} names {queue!r}, a queue to which no concurrent task is routed"
                f"{nearest(str(queue), queues)}"
            )
    return {
        queue: Fleet(
            queue=queue,
            tasks=tuple(sorted(task for group in groups for task in group.tasks)),
            limits=_together(groups, app.conf.worker_concurrency),
            layers=(
                *_scaling_layers(groups),
                Layer.of(queue, SETTING, settings.get(queue, _NOTHING)),
                Layer.of(queue, "command line", options),
                Layer.of(queue, OVERRIDE, overrides.get(queue, _NOTHING)),
            ),
        )
        for queue, groups in sorted(queues.items())
    }


def findings(app: Celery) -> list[Finding]:
    """What hides in the app's fleets; a worker and the autoscaler each say it once."""
    found = []
    for queue, groups in sorted(_groups_by_queue(app, route_of).items()):
        found += [Finding(queue=queue, text=text) for text in _differences(queue, groups)]
    for task in app.tasks.values():
        if mark_of(task) is not None and route_of(app, task) is None:
            text = (
                f"the queue of {task.name} cannot be told without its arguments: the autoscaler "
                f"counts it to {queue_of(app, task)!r}. Name its queue by @app.task(queue=...)"
            )
            found.append(Finding(queue=queue_of(app, task), text=text))
        elif mark_of(task) is None and scaling_of(task) is not None:
            text = (
                f"{task.name} has @scaling and no @concurrent, so it counts to no fleet: add "
                "@concurrent(max_inputs=...)"
            )
            found.append(Finding(queue=queue_of(app, task), text=text))
    return found


def _differences(queue: str, groups: list[_Group]) -> Iterable[str]:
    if len({(group.limits.max_inputs, group.limits.target) for group in groups}) > 1:
        told = _several(
            f"{group.name} has max_inputs={group.limits.max_inputs}, "
            f"target_inputs={group.limits.target}"
            for group in groups
        )
        yield (
            f"tasks with different limits share the queue {queue!r} and its fleet, which cannot "
            f"tell their inputs apart ({told}): {_REMEDY}"
        )
    for knob in sorted({knob for group in groups for knob in group.scaling}):
        saying = [group for group in groups if knob in group.scaling]
        if any(group.scaling[knob] != saying[0].scaling[knob] for group in saying):
            told = _several(f"{knob}={group.scaling[knob]!r} of {group.name}" for group in saying)
            yield (
                f"tasks with different knobs share the queue {queue!r} and its fleet, which takes "
                f"the first ({told}): {_REMEDY}"
            )


def _several(told: Iterable[str], most: int = 3) -> str:
    words = list(told)
    return "; ".join(words[:most]) + ("; ..." if len(words) > most else "")


def _settings(app: Celery) -> Mapping[str, Mapping[str, Any]]:
    settings: Any = app.conf.get(SETTING, _NOTHING)
    values = settings.values() if isinstance(settings, Mapping) else (settings,)
    if not all(isinstance(value, Mapping) for value in values):
        raise ConfigurationError(
            f"{SETTING}={settings!r} must be a dict of dicts, by queue: write "
            f'{SETTING} = {{"fetch": {{"max_nodes": 8}}}}'
        )
    return cast(Mapping[str, Mapping[str, Any]], settings)


def _together(groups: list[_Group], cap: int | None) -> Limits:
    """As a node has them, which keeps a slot for each group under any cap."""
    most = sum(group.limits.max_inputs for group in groups)
    target = sum(group.limits.target for group in groups)
    if cap:
        most = min(most, max(cap, len(groups)))
    return Limits(max_inputs=most, target_inputs=min(target, most))


def _scaling_layers(groups: list[_Group]) -> list[Layer]:
    """The first task, by name, that says something of a knob has it: it stands last."""
    return [
        Layer(source=f"@scaling of {group.name}", values=group.scaling)
        for group in reversed(groups)
        if group.scaling
    ]


def _groups_by_queue(
    app: Celery, queue_of: Callable[[Any, Any], str | None]
) -> dict[str, list[_Group]]:
    """By queue, what its concurrent tasks are, in the order of their names."""
    tasks: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for task in app.tasks.values():
        mark = mark_of(task)
        queue = None if mark is None else queue_of(app, task)
        if mark is not None and queue is not None:
            tasks[queue, mark.group_of(task)].append(task)
    groups: dict[str, list[_Group]] = defaultdict(list)
    for (queue, name), members in sorted(tasks.items()):
        mark = mark_of(members[0])
        assert mark is not None
        groups[queue].append(
            _Group(
                name=name,
                limits=mark.limits,
                scaling=_scaling(app, members[0], mark) or _NOTHING,
                tasks=tuple(task.name for task in members),
            )
        )
    return dict(groups)


def _scaling(app: Celery, task: Any, mark: Mark) -> Mapping[str, Any] | None:
    """What ``@scaling`` said of a task: a service's method has it by the class."""
    for service in services_of(app):
        if service.name == mark.group:
            return scaling_of(service.cls)
    return scaling_of(task)
