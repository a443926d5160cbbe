"""How many nodes serve a queue, and on what: pure, validated data.

What is said of a fleet comes in layers. From the weakest to the strongest: ``@scaling`` on its
tasks, the app setting ``concurrent_fleets``, the command line, overrides at run time. Each is
checked by itself, so that an error names where the value stands, and :func:`merged` checks them
together.
"""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from celery_concurrent.errors import ConfigurationError

PolicyName = Literal["hold", "break-even"]

#: Names that were used before, or that say container for node.
OLDER: Final[Mapping[str, str]] = MappingProxyType(
    {
        "min_containers": "min_nodes",
        "max_containers": "max_nodes",
        "buffer_containers": "buffer_nodes",
        "keep_warm": "min_nodes",
        "concurrency_limit": "max_nodes",
        "container_idle_timeout": "scaledown_window",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """What the autoscaler keeps to in one fleet.

    Args:
        min_nodes: nodes that stay without any demand, 0 or more.
        max_nodes: nodes that there are at the most, min_nodes or more. The default keeps an
            unexpected backlog from filling a machine; 0 runs none.
        buffer_nodes: nodes beyond those that the demand asks for, while there is any; never
            above max_nodes.
        scaledown_window: seconds that a node must not have been needed before it is drained,
            0 or more; a busy one, if inputs run longer, for a mean run time.
        gpus: devices of each node, 0 or more.
        nodes_per_gpu: nodes that share one device, 1 or more; above 1 only with gpus=1.
        policy: "hold" keeps nodes for scaledown_window, "break-even" for as long as a start
            would cost more.
        price: what "break-even" pays to spare an input one second of waiting, in seconds of a
            node, above 0.

    Raises:
        ConfigurationError: a value of another type or out of range, with the knob's name.
    """

    min_nodes: int = 0
    max_nodes: int = 10
    buffer_nodes: int = 0
    scaledown_window: float = 60.0
    gpus: int = 0
    nodes_per_gpu: int = 1
    policy: PolicyName = "hold"
    price: float = 3.0

    def __post_init__(self) -> None:
        for name in NAMES:
            _check(name, getattr(self, name))
        if self.min_nodes > self.max_nodes:
            raise ConfigurationError(
                f"min_nodes={self.min_nodes} must not exceed max_nodes={self.max_nodes}. "
                "Raise max_nodes, or lower min_nodes."
            )
        if self.nodes_per_gpu > 1 and self.gpus > 1:
            raise ConfigurationError(
                f"nodes_per_gpu={self.nodes_per_gpu} must be 1 where gpus={self.gpus}: only nodes "
                "of one device each can share it. Set one of the two to 1."
            )


NAMES: Final = tuple(field.name for field in fields(Knobs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What one place says of a fleet; make it by :meth:`of`, which checks it.

    Args:
        source: the place, for people: ``@scaling of shop.fetch``, ``concurrent_fleets``.
        values: by knob; what it does not name is left to the other layers.
    """

    source: str
    values: Mapping[str, Any]

    @classmethod
    def of(cls, fleet: str, source: str, values: Mapping[str, Any]) -> Layer:
        """A layer of what was written there.

        Raises:
            ConfigurationError: naming the fleet, the place, the knob, its value, the remedy.
        """
        try:
            return cls(source=source, values=said(values, stacklevel=3))
        except ConfigurationError as error:
            raise ConfigurationError(f"fleet {fleet!r}, {source}: {error}") from error


def said(values: Mapping[str, Any], *, stacklevel: int = 2) -> Mapping[str, Any]:
    """What these values say, each checked by itself, the older names replaced.

    None says nothing. ``stacklevel`` is where a warning of an older name points, as in
    :func:`warnings.warn`.

    Raises:
        ConfigurationError: an unknown name, a value that is wrong, or two names of one knob.
    """
    chosen: dict[str, Any] = {}
    for given, value in values.items():
        if value is None:
            continue
        name = OLDER.get(given, given)
        if name not in NAMES:
            raise ConfigurationError(_unknown(given, value))
        if name in chosen:
            raise ConfigurationError(
                f"{given}={value!r} and another name of {name} are given: keep {name}"
            )
        _check(given, value, name)
        if given != name:
            warnings.warn(
                f"{given}={value!r} is an older name: write {name}={value!r}",
                DeprecationWarning,
                stacklevel=stacklevel + 1,
            )
        chosen[name] = value
    return MappingProxyType(chosen)


def complete(values: Mapping[str, Any]) -> Knobs:
    """The knobs of what was said, with the defaults for the rest.

    Raises:
        ConfigurationError: the values do not go together.
    """
    if values.get("nodes_per_gpu", 1) > 1 and "gpus" not in values:
        raise ConfigurationError(
            f"nodes_per_gpu={values['nodes_per_gpu']} needs gpus: write gpus=1, or gpus=0 to run "
            "without devices."
        )
    return Knobs(**values)


def merged(fleet: str, layers: Iterable[Layer]) -> Knobs:
    """The knobs of a fleet: of each the value of the strongest layer, which is the last one.

    Raises:
        ConfigurationError: naming the fleet, the knob, its value, where it stands, the remedy.
    """
    chosen: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for layer in layers:
        chosen.update(layer.values)
        sources.update(dict.fromkeys(layer.values, layer.source))
    try:
        return complete(chosen)
    except ConfigurationError as error:
        where = ", ".join(f"{name} from {source}" for name, source in sources.items())
        raise ConfigurationError(f"fleet {fleet!r}: {error} ({where})") from error


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint for a misspelt name, to be put into a sentence; empty where none is near."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _unknown(name: str, value: Any) -> str:
    near = nearest(str(name), [*NAMES, *OLDER]) or "."
    return f"{name}={value!r} is no knob of a fleet{near} The knobs are {', '.join(NAMES)}."


def _check(given: str, value: Any, name: str | None = None) -> None:
    """Check one value by itself; ``given`` is how the user calls the knob."""
    name = name or given
    if name == "policy":
        if not isinstance(value, str) or value not in get_args(PolicyName):
            near = nearest(str(value), get_args(PolicyName))
            raise ConfigurationError(f'{given}={value!r} must be "hold" or "break-even"{near}')
    elif name in {"scaledown_window", "price"}:
        _check_number(given, value, above_zero=name == "price")
    else:
        _check_count(given, value, least=1 if name == "nodes_per_gpu" else 0)


def _check_count(name: str, value: Any, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(
            f"{name}={value!r} must be an int, not {type(value).__name__}. "
            f"Write it as a whole number, as in {name}={max(least, 1)}."
        )
    if value < least:
        raise ConfigurationError(
            f"{name}={value!r} must be {least} or more. Use {name}={least} for the least."
        )


def _check_number(name: str, value: Any, *, above_zero: bool) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(
            f"{name}={value!r} must be a number, not {type(value).__name__}. "
            f"Write it without quotes, as in {name}=3."
        )
    if not math.isfinite(value) or value < 0 or (above_zero and value == 0):
        rule = "above 0" if above_zero else "0 or more"
        raise ConfigurationError(f"{name}={value!r} must be finite and {rule}, as in {name}=3.")
