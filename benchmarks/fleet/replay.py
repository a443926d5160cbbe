"""Recorded arrivals through both policies and the peers' rules, in simulated time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.fleet.peers import Bounds, KedaHpa, KnativeKpa, ModalRule, RayServe
from celery_concurrent.autoscaler.breakeven import BreakEven
from celery_concurrent.autoscaler.hold import Hold
from celery_concurrent.autoscaler.model import AnyPolicy
from celery_concurrent.autoscaler.replay import Arrival, Engine
from celery_concurrent.autoscaler.simulate import simulate
from celery_concurrent.autoscaler.traces import read_trace

TRACES = ("azure2023_code", "azure2023_conv", "mooncake_conversation")
COLD_STARTS = (5.0, 20.0, 60.0)
PRICE = 3.0
#: From waiting that costs next to nothing to waiting that costs almost everything.
PRICES = (0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.55, 1.0, 1.7, PRICE, 5.5, 10.0, 30.0, 100.0)
#: KEDA's target, in shares of the inputs per node aimed at: the smaller, the more nodes.
KEDA_TARGETS = (0.25, 0.35, 0.5, 0.6, 0.7, 0.8, 0.9, 1.25, 1.5, 2.0)
WINDOW = 60.0
WINDOWS = (1.0, 5.0, 20.0, WINDOW, 300.0)

_FOLDER = Path(__file__).parent / "traces"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One rule with one setting of its knob: a price, a window, KEDA's target; None for none."""

    rule: str
    knob: float | None = None

    @property
    def name(self) -> str:
        return self.rule if self.knob is None else f"{self.rule} {self.knob:g}"


HOLD = Contender(rule="hold", knob=WINDOW)
BREAK_EVEN = Contender(rule="break-even", knob=PRICE)
MODAL = Contender(rule="Modal's rule", knob=WINDOW)
KEDA = Contender(rule="KEDA + HPA")
PEERS = (MODAL, Contender(rule="Ray Serve"), Contender(rule="Knative KPA"), KEDA)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One trace on nodes of one cold start."""

    trace: str
    cold_start: float

    @property
    def name(self) -> str:
        return f"{self.trace}, {self.cold_start:g} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a contender did in a case: waits in seconds, shares of all inputs."""

    node_seconds: float
    p50: float
    p90: float
    p99: float
    within_1: float
    within_10: float
    peak: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One cell of the table, before it is measured."""

    case: Case
    contender: Contender
    bounds: Bounds


def contenders(prices: Iterable[float] = PRICES) -> list[Contender]:
    """Everyone, with each setting once."""
    ours = [Contender(rule="break-even", knob=price) for price in prices]
    windows = [
        Contender(rule=rule, knob=window) for window in WINDOWS for rule in (HOLD.rule, MODAL.rule)
    ]
    targets = [Contender(rule=KEDA.rule, knob=target) for target in KEDA_TARGETS]
    return list(dict.fromkeys([HOLD, BREAK_EVEN, *PEERS, *ours, *windows, *targets]))


def policy(contender: Contender, bounds: Bounds) -> tuple[AnyPolicy, float | None]:
    """The rule, and the seconds between its looks; None for a look at every event."""
    knob = 0.0 if contender.knob is None else contender.knob
    sizes = {"target": bounds.target, "max_nodes": bounds.max_nodes}
    made: Mapping[str, Callable[[], AnyPolicy]] = {
        HOLD.rule: lambda: Hold(**sizes, window=knob),
        BREAK_EVEN.rule: lambda: BreakEven(**sizes, max_inputs=bounds.max_inputs, price=knob),
        MODAL.rule: lambda: ModalRule(bounds=bounds, window=knob),
        "Ray Serve": lambda: RayServe(bounds=bounds),
        "Knative KPA": lambda: KnativeKpa(bounds=bounds),
        KEDA.rule: lambda: KedaHpa(bounds=bounds, target=(knob or 1.0) * bounds.target),
    }
    rule = made[contender.rule]()
    return rule, getattr(rule, "every", None)


def measure(run: Run) -> Outcome:
    """Replay one cell; the cost is counted until the last input has ended."""
    rule, every = policy(run.contender, run.bounds)
    engine = Engine(
        target=run.bounds.target,
        max_inputs=run.bounds.max_inputs,
        cold_start=run.case.cold_start,
    )
    replay = simulate(rule, arrivals(run.case.trace), engine, every=every)
    return Outcome(
        node_seconds=replay.node_seconds,
        p50=replay.wait(0.5),
        p90=replay.wait(0.9),
        p99=replay.wait(0.99),
        within_1=replay.within(1.0),
        within_10=replay.within(10.0),
        peak=replay.peak,
    )


@cache
def arrivals(trace: str) -> tuple[Arrival, ...]:
    return read_trace(_FOLDER / f"{trace}.csv.gz")


def measure_all(
    runs: Iterable[Run], *, jobs: int, done: Callable[[int], None]
) -> dict[tuple[Case, Contender], Outcome]:
    """All cells, ``jobs`` at once; ``done`` hears how many are."""
    outcomes = {}
    todo = list(runs)
    with ProcessPoolExecutor(jobs) as pool:
        for run, outcome in zip(todo, pool.map(measure, todo), strict=True):
            outcomes[run.case, run.contender] = outcome
            done(len(outcomes))
    return outcomes
