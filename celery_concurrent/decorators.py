"""The decorators: how many inputs of a task one node runs at once, and how many nodes there are."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Final, NoReturn, TypeVar, cast

from celery_concurrent import knobs, marks, registration
from celery_concurrent.errors import ConfigurationError
from celery_concurrent.knobs import PolicyName
from celery_concurrent.limits import Limits

Target = TypeVar("Target")

_MISSING: Final = cast(int, object())
_USAGE: Final = "write @concurrent(max_inputs=10) or @concurrent(max_inputs=10, target_inputs=8)"
_SCALING_USAGE: Final = "write @scaling(min_nodes=1, max_nodes=8)"


def concurrent(
    *misplaced: NoReturn,
    max_inputs: int = _MISSING,
    target_inputs: int | None = None,
    **unknown: NoReturn,
) -> Callable[[Target], Target]:
    """Let one node run up to ``max_inputs`` inputs of this task at once.

    Goes on a function (``def`` runs on threads, ``async def`` on one event loop), below or
    above ``@app.task`` and ``@shared_task``, or on the class of a service. The function
    itself is not changed: called directly it is what it was.

    Args:
        misplaced: nothing goes here; there to tell what is wrong.
        max_inputs: hard limit per node, an int of 1 or more.
        target_inputs: what the autoscaler aims at per node, in 1..max_inputs; None: max_inputs.
        unknown: nothing goes here; there to tell what is wrong.

    Raises:
        ConfigurationError: at definition time, naming the parameter, the value and the remedy.
    """
    if misplaced:
        raise marks.without_keyword("@concurrent", misplaced[0], _USAGE)
    if unknown:
        raise _unknown(*next(iter(unknown.items())))
    if max_inputs is _MISSING:
        raise ConfigurationError(f"@concurrent needs max_inputs; {_USAGE}")
    limits = Limits(max_inputs=max_inputs, target_inputs=target_inputs)

    def decorate(target: Target) -> Target:
        # A task's proxy answers isclass() by evaluating itself, which would configure the
        # app too early: ask for proxies first, by their own type.
        if registration.is_task(target):
            registration.mark_task(target, limits)
        elif registration.is_task_class(target):
            registration.mark_task_class(target, limits)
        elif inspect.isclass(target):
            marks.mark_class(target, limits)
        else:
            marks.mark_function(target, limits)
        return target

    return decorate


def _unknown(name: str, value: object) -> ConfigurationError:
    told = (
        f"{name}={value!r} is not a parameter of @concurrent, which takes max_inputs and "
        "target_inputs"
    )
    if name in knobs.NAMES:
        return ConfigurationError(
            f"{told}: it is a knob of the fleet; write @scaling({name}={value!r}) above it"
        )
    return ConfigurationError(f"{told}; {_USAGE}")


def scaling(
    *misplaced: NoReturn,
    min_nodes: int | None = None,
    max_nodes: int | None = None,
    buffer_nodes: int | None = None,
    scaledown_window: float | None = None,
    gpus: int | None = None,
    nodes_per_gpu: int | None = None,
    policy: PolicyName | None = None,
    price: float | None = None,
    **older: NoReturn,
) -> Callable[[Target], Target]:
    """Say how many nodes the autoscaler keeps for this task's queue.

    Goes where ``@concurrent`` goes, below or above it and ``@app.task``, or on the class of a
    service. What is left out, or None, is left to the setting ``concurrent_fleets``, the
    autoscaler's options and the defaults of :class:`~celery_concurrent.Knobs`, which says
    what each parameter means.

    Args:
        misplaced: nothing goes here; there to tell what is wrong.
        min_nodes: 0 or more.
        max_nodes: min_nodes or more.
        buffer_nodes: 0 or more.
        scaledown_window: seconds, 0 or more.
        gpus: 0 or more.
        nodes_per_gpu: 1 or more.
        policy: "hold" or "break-even".
        price: above 0.
        older: the names min_containers, max_containers, buffer_containers, keep_warm,
            concurrency_limit and container_idle_timeout, which work and warn.

    Raises:
        ConfigurationError: at definition time, naming the parameter, the value and the remedy.
    """
    if misplaced:
        raise marks.without_keyword("@scaling", misplaced[0], _SCALING_USAGE)
    given = {
        "min_nodes": min_nodes,
        "max_nodes": max_nodes,
        "buffer_nodes": buffer_nodes,
        "scaledown_window": scaledown_window,
        "gpus": gpus,
        "nodes_per_gpu": nodes_per_gpu,
        "policy": policy,
        "price": price,
    }
    values = knobs.said({**given, **older})
    knobs.complete(values)  # what does not go together here goes together nowhere

    def decorate(target: Target) -> Target:
        if registration.is_task(target):
            registration.mark_task_scaling(target, values)
        else:
            marks.mark_scaling(target, values)
        return target

    return decorate
