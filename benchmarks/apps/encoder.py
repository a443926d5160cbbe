"""A text encoder on a GPU, of BERT's size with random weights.

Needs PyTorch with CUDA; only the row ``model`` imports it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from celery.concurrency import get_implementation
from celery.signals import worker_init, worker_process_init

from benchmarks.model import Kind
from benchmarks.probe import Probe
from celery_concurrent import batched

_TOKENS, _WORDS, _WIDTH = 128, 30_000, 768


class Encoder:
    """Twelve layers of width 768 in bfloat16: 85 million weights, 22 GFLOP per text."""

    def __init__(self) -> None:
        layer = torch.nn.TransformerEncoderLayer(
            _WIDTH, nhead=12, dim_feedforward=4 * _WIDTH, activation="gelu", batch_first=True
        )
        model = torch.nn.TransformerEncoder(layer, num_layers=12, enable_nested_tensor=False)
        self._model = model.to("cuda", torch.bfloat16).eval()
        self._table = torch.randn(_WORDS, _WIDTH, device="cuda", dtype=torch.bfloat16)
        self._places = torch.arange(_TOKENS, device="cuda")

    @torch.inference_mode()
    def embed(self, texts: list[int]) -> Any:
        """The first number of each text's vector; a text is a number that its words follow from."""
        first = torch.tensor(texts, device="cuda")[:, None] * 31
        words = (first + self._places) % _WORDS
        vectors = self._model(self._table[words])
        return vectors[:, 0, 0].tolist()  # waits for the GPU


#: The most texts in one call of the model.
MOST = 64
_loaded: list[Encoder] = []


def _embed(texts: list[int]) -> list[float]:
    numbers: list[float] = _loaded[0].embed(texts)
    return numbers


def _load(**_kwargs: Any) -> None:
    """Load and warm it up, so that no input has to."""
    _loaded.append(Encoder())
    for size in (1, MOST):
        _embed(list(range(size)))


def _load_in_the_worker(sender: Any, **_kwargs: Any) -> None:
    # CUDA does not survive a fork: prefork's children load it, each for itself.
    if not get_implementation(sender.pool_cls).__module__.endswith("prefork"):
        _load()


def body(kind: Kind, probe: Probe) -> Callable[..., Any]:
    """The task's function, whose model the worker loads when it starts."""
    worker_init.connect(_load_in_the_worker, weak=False)
    worker_process_init.connect(_load, weak=False)
    embed = batched(max_batch_size=MOST)(_embed)

    def model_sync(index: int) -> float:
        probe.begin(index)
        [number] = _embed([index])
        probe.end(index)
        return number

    async def model_async(index: int) -> float:
        probe.begin(index)
        number = await embed(index)
        probe.end(index)
        return number

    return model_async if kind == "async" else model_sync
