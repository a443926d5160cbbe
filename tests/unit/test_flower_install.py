"""How the page comes into Flower's command, and what is left when it does not."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("flower")

import flower.command

from celery_concurrent.flower import install as module
from celery_concurrent.flower.install import install, is_known
from celery_concurrent.flower.templating import FleetLoader, with_fleet

WORDS = ["celery", "-A", "shop", "flower"]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a plain Flower was made with, in place of one."""
    calls: list[Any] = []

    def plain(*arguments: Any, **options: Any) -> str:
        calls.append((arguments, options))
        return "plain"

    monkeypatch.setattr(flower.command, "Flower", plain)
    return calls


def test_another_command_leaves_flower_alone(made: list[Any]) -> None:
    before = flower.command.Flower
    install(["celery", "-A", "shop", "worker"])
    assert flower.command.Flower is before


def test_another_command_imports_nothing_of_flower() -> None:
    code = (
        "import sys; sys.argv = ['celery', '-A', 'shop', 'worker'];"
        "from celery_concurrent.flower import install; install.install();"
        "print([name for name in sys.modules if name.split('.')[0] in ('flower', 'tornado')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"


def test_installing_twice_changes_nothing(made: list[Any]) -> None:
    install(WORDS)
    once = flower.command.Flower
    install(WORDS)
    assert flower.command.Flower is once


@pytest.mark.parametrize("version", ["2.0.1", "2.3.0", "3.0.0", "2.20.0", "2.2", "", "dev"])
def test_an_unknown_version_is_named_once_and_plain_flower_starts(
    version: str,
    made: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(flower, "__version__", version)
    install(WORDS)
    assert flower.command.Flower(capp="app", debug=True) == "plain"
    assert made == [((), {"capp": "app", "debug": True})]
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert f"it knows Flower 2.2, and this is Flower {version}." in record.getMessage()
    assert 'pip install "flower==2.2.*"' in record.getMessage()


def test_a_future_command_without_the_name_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(flower.command, "Flower")
    monkeypatch.setattr(flower, "__version__", "9.0")
    install(WORDS)
    [record] = caplog.records
    assert "this is Flower 9.0" in record.getMessage()
    assert not hasattr(flower.command, "Flower")


def test_a_page_that_cannot_be_set_up_is_told_once_and_flower_starts(
    made: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    install(WORDS)  # what is made here has no settings, no events, nothing
    assert flower.command.Flower() == "plain"
    [record] = caplog.records
    assert "so Flower runs without it (AttributeError: " in record.getMessage()
    assert record.exc_info


def test_what_flower_itself_raises_is_raised(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def plain() -> None:
        raise ValueError("no such option")

    monkeypatch.setattr(flower.command, "Flower", plain)
    install(WORDS)
    with pytest.raises(ValueError, match="no such option"):
        flower.command.Flower()
    assert not caplog.records


def test_the_installed_flower_is_known() -> None:
    assert is_known(flower.__version__), f"look at Flower {flower.__version__}, then add it"
    assert module.KNOWN


def test_the_entry_comes_before_flowers_broker_and_once() -> None:
    loader = FleetLoader(flower.command.settings["template_path"])
    navbar = loader.load("navbar.html").code
    places = [navbar.find(f">{name}</a>") for name in ("Workers", "Tasks", "Fleet", "Broker")]
    assert -1 not in places
    assert places == sorted(places)
    assert navbar.count(">Fleet</a>") == 1


def test_another_navigation_bar_stays_as_it_is_and_that_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for other in ("", "<nav>active_tab == 'broker'</nav>", '<li class="nav-item">Broker</li>'):
        assert with_fleet(other) == other
    assert all("open /fleet by its address" in record.getMessage() for record in caplog.records)
    assert len(caplog.records) == 3
