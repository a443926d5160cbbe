"""``python -m celery_concurrent.demo``: a real autoscaler under a real arrival trace.

Starts a private broker and ``celery autoscaler`` with simulated GPUs, replays the arrivals of a
production inference service as Celery inputs, shows how nodes come and go, replays the same
arrivals through a fixed fleet of the same cost, and leaves a comparison and a plot. The model is
the one thing that is not real: an input sleeps for as long as a model would read its prompt.
"""
