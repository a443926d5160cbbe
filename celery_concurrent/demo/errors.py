"""What can end the demo early; the texts are shown to the user as they are."""

from __future__ import annotations

from celery_concurrent.errors import ConcurrencyError


class DemoError(ConcurrencyError, RuntimeError):
    """The demo cannot go on; the message says why."""


class AutoscalerEndedError(DemoError):
    """The autoscaler ended by itself; the message holds the end of its log."""


class InterruptedBySignalError(DemoError):
    """Ctrl-C or another signal asked the demo to end; ``signum`` says which."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by signal {signum}")
        self.signum = signum


class BrokerLostError(DemoError):
    """The embedded broker does not answer any more; the message says what was seen."""


class FleetError(DemoError):
    """The autoscaler does not answer, or its fleet does not come to what it was told to be."""


class StalledError(DemoError):
    """Inputs wait for results and none came for a while; the message counts them."""
