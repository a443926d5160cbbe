"""What nodes and autoscalers say of themselves, as Prometheus wants to read it.

A :class:`~celery_concurrent.metrics.tally.Tally` counts what must outlive the nodes,
:func:`~celery_concurrent.metrics.collector.register` gives a registry that and what the board
shows, and an autoscaler serves both by :mod:`~celery_concurrent.metrics.serving`. Only the last
two need ``prometheus_client``.
"""
