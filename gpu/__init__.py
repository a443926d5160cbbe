"""A host's GPUs and their sharing among nodes.

Pure: what devices are (``device``), which node gets which (``pin``), what a node may run when
memory is short (``guard``). Readers of devices: ``nvml``, which alone imports ``pynvml``, and
``simulated`` for demos and tests. ``locks`` keep two autoscalers off one device, ``command``
is ``celery gpus``; ``install`` and ``node`` bring the guard into nodes. All of it knows the core
and nothing of the autoscaler, and works without a driver and without a GPU.

The folder stands at the root of the checkout and is installed, and imported, only as
``celery_concurrent.gpu``.
"""

from __future__ import annotations

# Celery puts the working directory first on the path, so in a checkout's root the bare name
# would import this folder a second time, as another module with other classes.
if __name__ != "celery_concurrent.gpu":
    raise ImportError(
        f"this folder is no package of its own: import celery_concurrent.gpu, not {__name__}"
    )
