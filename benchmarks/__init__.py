"""Side-by-side measurements: our node, Celery's own pools and peers, in one run.

``python -m benchmarks node`` starts its own brokers, gives every contender the same
inputs and judges all of them by the same clock. ``python -m benchmarks fleet`` replays recorded
arrivals through scaling policies, in simulated time. README.md states the rules,
BASELINE.md how to read the figures.
"""
