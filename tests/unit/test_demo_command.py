"""The demo's command line, before anything is started."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from celery_concurrent.demo import __main__ as command
from celery_concurrent.demo.errors import InterruptedBySignalError


@pytest.fixture(autouse=True)
def handlers_restored() -> Iterator[None]:
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {signum: signal.getsignal(signum) for signum in signals}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize(
    "argv", [["--speed", "0"], ["--speed", "nan"], ["--speed", "inf"], ["--limit", "-1"]]
)
def test_bad_option_is_named_with_its_value(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        command.main(argv)
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert argv[0] in error
    assert repr(argv[1]) in error


def test_missing_libraries_are_named_with_the_pip_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert command.main([]) == 1
    error = capsys.readouterr().err
    assert "rich, matplotlib" in error
    assert 'pip install "celery-concurrent[demo]"' in error


def test_plot_that_cannot_be_written_is_told_before_the_replay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rich")
    pytest.importorskip("matplotlib")
    assert command.main(["--plot", str(tmp_path / "no" / "such.png")]) == 1
    captured = capsys.readouterr()
    assert "--plot" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_first_signal_is_noted_and_a_second_one_is_the_kernels(signum: signal.Signals) -> None:
    interrupt = command.Interrupt()
    interrupt.install()
    interrupt.check()
    os.kill(os.getpid(), signum)
    with pytest.raises(InterruptedBySignalError) as raised:
        interrupt.check()
    assert raised.value.signum == signum
    assert signal.getsignal(signum) == signal.SIG_DFL
