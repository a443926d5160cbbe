"""The app as our node serves it when it may hold inputs beside those that run."""

from __future__ import annotations

from benchmarks.apps.node import app

app.conf.concurrent_reserve = 4
