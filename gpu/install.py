"""How a node comes to guard and to keep its devices: the core knows nothing of them.

Installed by the entry point that every ``celery`` command loads, so a worker that a program
makes by itself, without the command, has no guard unless it calls :func:`install`.
"""

from __future__ import annotations

from typing import Any

from celery import signals


def install() -> None:
    """Have the node that this process becomes do so; doing it twice changes nothing."""
    # After the core's own receiver, which says whether this worker is a node: that one was
    # connected when the package was imported.
    signals.worker_init.connect(_on_worker_init, dispatch_uid="celery-concurrent-guard")


def _on_worker_init(sender: Any, **_: Any) -> None:
    # Every `celery` command imports this module.
    from celery_concurrent.gpu.locks import keep_handed
    from celery_concurrent.gpu.node import GuardStep
    from celery_concurrent.worker.steps import NodeStep

    steps = sender.app.steps["worker"]
    if NodeStep in steps:
        steps.add(GuardStep)
    keep_handed()
