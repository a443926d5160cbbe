"""The picture that the demo leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from celery_concurrent.demo.fleet import Fleet, Node
from celery_concurrent.demo.measure import Ledger
from celery_concurrent.demo.plot import draw
from celery_concurrent.limits import Limits

LIMITS = Limits(max_inputs=4, target_inputs=3)
NODE = Node(name="n", state="ready", running=1, device="GPU-simulated-0")


def ledger(inputs: int, *, error: str | None = None) -> Ledger:
    book = Ledger(total=inputs)
    for n in range(inputs):
        book.publish(str(n), due=n / 10, now=n / 10)
        if error is None:
            book.settle(str(n), node="n", started=n / 10, ended=n / 10 + 1)
        else:
            book.settle(str(n), error=error)
    for at in range(inputs):
        book.snapshot(elapsed=float(at), fleet=Fleet(nodes=(NODE,) * (at % 3)))
    return book


@pytest.mark.parametrize(
    "run", [ledger(0), ledger(1, error="boom"), ledger(20)], ids=["none", "failed", "twenty"]
)
def test_plot_is_a_png_whatever_the_outcome(run: Ledger, tmp_path: Path) -> None:
    draw([("autoscaled", run), ("fixed", run)], LIMITS, path=tmp_path / "demo.png")
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
