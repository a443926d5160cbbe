"""What was set at run time, kept in a file so that it survives the autoscaler."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from celery_concurrent.errors import ConfigurationError
from celery_concurrent.fleets import Fleet


class Overrides:
    """Knobs by queue, and the queues that are drained by hand.

    Args:
        path: the file; its folder must be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.knobs: dict[str, dict[str, Any]] = {}
        self.drained: set[str] = set()
        self._load()

    def keep(self, *, knobs: Mapping[str, Mapping[str, Any]], drained: Iterable[str]) -> None:
        """Hold to these from now on, once they are written: all of it, or nothing.

        Raises:
            OSError: there is no room, or no right; what was set before is still in force.
        """
        knobs_kept = {queue: dict(said) for queue, said in knobs.items()}
        drained_kept = set(drained)
        beside = self.path.with_suffix(".new")
        with beside.open("w") as file:
            json.dump({"knobs": knobs_kept, "drained": sorted(drained_kept)}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.path)
        self.knobs, self.drained = knobs_kept, drained_kept

    def _load(self) -> None:
        try:
            kept = json.loads(self.path.read_text())
            self.knobs = {str(queue): dict(said) for queue, said in kept["knobs"].items()}
            self.drained = set(map(str, kept["drained"]))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"{self.path} does not hold overrides ({error}): remove it to start without"
            ) from error


def applied(
    fleets: Mapping[str, Fleet], overrides: Overrides
) -> tuple[dict[str, Fleet], list[str]]:
    """The fleets with what was set of them at run time, and sentences about what cannot hold.

    An app may outgrow its overrides: a fleet whose knobs they do not go with any more goes
    without, for a fleet that does not start is worse than one that is not as it was set.
    Overrides of queues that the app does not have any more do not count.
    """
    found, outgrown = dict(fleets), []
    for queue in sorted(fleets.keys() & overrides.knobs.keys()):
        said = overrides.knobs[queue]
        try:
            found[queue] = fleets[queue].overridden(said)
        except ConfigurationError as error:
            told = ", ".join(f"{name}={value!r}" for name, value in said.items())
            outgrown.append(
                f"fleet {queue} starts without its overrides {told} of {overrides.path}, which do "
                f"not go with the app any more ({error}): take them back by "
                f"`fleet set {queue} --reset`"
            )
    return found, outgrown


def changed(before: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides after a change; a value of None takes the override back."""
    return {name: value for name, value in {**before, **values}.items() if value is not None}
