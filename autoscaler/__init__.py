"""Fleets that follow their backlog: what ``celery -A app autoscaler`` runs.

Here live the scaling policies and their model (pure: an observation in, a decision with its
reason out), the loop that observes, decides and applies, the commands, and one provider per
engine: ``local``, of processes. It may use :mod:`celery_concurrent.gpu` and the
core's limits; the core knows nothing of it.

The folder stands at the root of the checkout and is installed, and imported, only as
``celery_concurrent.autoscaler``.
"""

from __future__ import annotations

# Celery puts the working directory first on the path, so in a checkout's root the bare name
# would import this folder a second time, as another module with other classes.
if __name__ != "celery_concurrent.autoscaler":
    raise ImportError(
        f"this folder is no package of its own: import celery_concurrent.autoscaler, not {__name__}"
    )
