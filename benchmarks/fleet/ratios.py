"""What a policy costs beside another, at what it is and at the same service."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.fleet.replay import (
    BREAK_EVEN,
    HOLD,
    KEDA,
    MODAL,
    PEERS,
    WINDOWS,
    Case,
    Contender,
    Outcome,
)

SAME_SERVICE = "same share within 10 s, price moved"
SAME_PRICE = "same share within 10 s, its target moved"
Outcomes = Mapping[tuple[Case, Contender], Outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Node-seconds of ours over those of a peer, per case.

    Args:
        ours, theirs: who is compared.
        how: under which condition.
        values: None in a case in which there is nothing to compare.
    """

    ours: str
    theirs: str
    how: str
    values: tuple[float | None, ...]

    @property
    def mean(self) -> float | None:
        """Geometric, over the cases that can be compared."""
        known = [value for value in self.values if value is not None]
        return math.exp(sum(map(math.log, known)) / len(known)) if known else None

    @property
    def worst(self) -> float:
        return max((value for value in self.values if value is not None), default=math.nan)


def ratios(outcomes: Outcomes) -> list[Ratio]:
    """Break-even beside each peer, both ways, and hold beside Modal's rule."""
    cases = list(dict.fromkeys(case for case, _ in outcomes))
    found = []
    for peer in PEERS:
        found.append(
            Ratio(
                ours=BREAK_EVEN.rule,
                theirs=peer.name,
                how=SAME_SERVICE,
                values=tuple(_matched(outcomes, case, peer) for case in cases),
            )
        )
        found.append(_plain(outcomes, cases, BREAK_EVEN, peer, f"price {BREAK_EVEN.knob:g}"))
    found.append(
        Ratio(
            ours=BREAK_EVEN.rule,
            theirs=KEDA.name,
            how=SAME_PRICE,
            values=tuple(_keda_matched(outcomes, case) for case in cases),
        )
    )
    for window in WINDOWS:
        hold = Contender(rule=HOLD.rule, knob=window)
        modal = Contender(rule=MODAL.rule, knob=window)
        found.append(_plain(outcomes, cases, hold, modal, "same window"))
    return found


def _plain(
    outcomes: Outcomes, cases: Iterable[Case], ours: Contender, theirs: Contender, how: str
) -> Ratio:
    return Ratio(
        ours=ours.rule,
        theirs=theirs.name,
        how=how,
        values=tuple(
            outcomes[case, ours].node_seconds / outcomes[case, theirs].node_seconds
            for case in cases
        ),
    )


def _matched(outcomes: Outcomes, case: Case, peer: Contender) -> float | None:
    theirs = outcomes[case, peer]
    ours = cost_at(theirs.within_10, _points(outcomes, case, BREAK_EVEN.rule))
    return None if ours is None else ours / theirs.node_seconds


def _keda_matched(outcomes: Outcomes, case: Case) -> float | None:
    ours = outcomes[case, BREAK_EVEN]
    theirs = cost_at(ours.within_10, _points(outcomes, case, KEDA.rule))
    return None if theirs is None else ours.node_seconds / theirs


def _points(outcomes: Outcomes, case: Case, rule: str) -> list[tuple[float, float]]:
    """Share within 10 s and cost of every setting of a rule."""
    return [
        (outcome.within_10, outcome.node_seconds)
        for (found, contender), outcome in outcomes.items()
        if found == case and contender.rule == rule
    ]


def cost_at(share: float, points: Sequence[tuple[float, float]]) -> float | None:
    """What it costs to serve this share, from (share, cost) of several settings.

    Between two settings a straight line: who uses each for a part of the time gets that. None
    when no setting serves so many.
    """
    costs = [cost for served, cost in points if served >= share]
    for low, cheap in points:
        for high, dear in points:
            if low < share < high:
                costs.append(cheap + (dear - cheap) * (share - low) / (high - low))
    return min(costs, default=None)
