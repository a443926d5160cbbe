"""Inputs that the broker has given away and no node has told of."""

from __future__ import annotations

from celery_concurrent.autoscaler.transit import SETTLES, Transit


def test_what_was_seen_is_missing_until_it_is_counted_again() -> None:
    transit = Transit().after(10, now=0.0)
    assert (transit.seen, transit.missing) == (10, 0)
    transit = transit.after(4, now=0.1)
    assert (transit.seen, transit.missing) == (10, 6)
    transit = transit.after(8, now=0.2)
    assert (transit.seen, transit.missing) == (10, 2)
    transit = transit.after(12, now=0.3)
    assert transit == Transit(seen=12)


def test_what_nobody_tells_of_for_long_is_gone() -> None:
    """As after a purge."""
    transit = Transit().after(10, now=0.0).after(4, now=1.0).after(5, now=1.0 + SETTLES)
    assert transit.missing == 5
    assert transit.after(5, now=1.1 + SETTLES) == Transit(seen=5)
