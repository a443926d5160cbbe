"""The matrix of Pythons and of the oldest libraries."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.matrix import ROOT, environments, oldest


def test_the_oldest_pins_are_the_lower_bounds_of_the_requirements() -> None:
    setup = "[options]\ninstall_requires =\n    celery >=5.6,<5.8\n    kombu >=5.6\n    redis >=5\n"
    assert oldest(setup) == ("celery ==5.6", "kombu ==5.6", "redis ==5")


def test_the_projects_own_requirements_have_lower_bounds() -> None:
    assert len(oldest((ROOT / "setup.cfg").read_text())) == 3


def test_the_running_python_is_left_out_and_gets_the_oldest_libraries() -> None:
    here, other = sys.version_info.minor, sys.version_info.minor + 1
    found = {here: Path("here"), other: Path("other")}
    first, *others = environments(found, ("celery ==5.6",))
    assert (first.python, first.pins) == (Path(sys.executable), ("celery ==5.6",))
    assert [environment.name for environment in others] == [f"python3.{other}"]
