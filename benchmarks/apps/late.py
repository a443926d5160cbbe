"""The app as Celery's own pools serve it when nothing may be lost and nothing be held back.

An input is acknowledged after it has run, and fetched when it can run: what our node does.
"""

from __future__ import annotations

from benchmarks.apps.plain import app

app.conf.task_acks_late = True
app.conf.worker_prefetch_multiplier = 1
