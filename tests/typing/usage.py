"""What a type checker must say of the public API: mypy checks this file, nothing runs it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from typing_extensions import assert_type

from celery_concurrent import (
    Arguments,
    Knobs,
    Limits,
    TaskMap,
    acall,
    batched,
    concurrent,
    current_input_id,
    enter,
    get_local_input_concurrency,
    limits_of,
    scaling,
    task_map,
)
from celery_concurrent.embedded import EmbeddedBroker
from celery_concurrent.gpu.device import DeviceSource, Inventory
from celery_concurrent.gpu.locks import DeviceLock
from celery_concurrent.gpu.nvml import Nvml, inventory
from celery_concurrent.gpu.pin import Need, Shares, share
from celery_concurrent.gpu.simulated import Simulated


@concurrent(max_inputs=10)
def thumb(path: str, size: int = 64) -> bytes:
    return path.encode() * size


@concurrent(max_inputs=200, target_inputs=150)
async def fetch(url: str) -> int:
    return len(url)


@scaling(min_nodes=1, max_nodes=8, scaledown_window=30, gpus=1, policy="break-even", price=2.5)
@concurrent(max_inputs=4)
def infer(prompt: str) -> list[float]:
    return [float(len(prompt))]


@scaling(max_nodes=None)
class Model:
    @enter
    def load(self) -> None: ...


assert_type(thumb("a.png"), bytes)
assert_type(thumb("a.png", size=3), bytes)
assert_type(infer("a"), list[float])
assert_type(Model().load(), None)
assert_type(Knobs().max_nodes, int)
assert_type(limits_of(thumb), Limits | None)
assert_type(current_input_id(), str | None)
assert_type(get_local_input_concurrency(), int)
assert_type(EmbeddedBroker().url, str)

assert_type(inventory(), Inventory)
assert_type(share(inventory().devices, nodes=2, need=Need(gpus=2)), Shares)
assert_type(DeviceLock.take("GPU-a"), DeviceLock)
sources: list[DeviceSource] = [Nvml(), Simulated(2)]

anything: Any = thumb
assert_type(task_map(thumb, ["a.png"]), TaskMap[bytes])
assert_type(task_map(fetch, ["http://x"]), TaskMap[int])
assert_type(task_map(anything, ["a.png"]), TaskMap[Any])
assert_type(task_map(fetch, ["x"], return_exceptions=True), TaskMap[int | Exception])
assert_type(next(iter(task_map(thumb, ["a"], queue="q", chunk=10, max_pending=None))), bytes)
assert_type(list(task_map(fetch, [Arguments("x")]).in_order()), list[int])
assert_type(list(task_map(fetch, ["x"]).indexed()), list[tuple[int, int]])


@batched(max_batch_size=64)
def vectors(texts: list[str]) -> list[list[float]]:
    return [[float(len(text))] for text in texts]


@batched(max_batch_size=64, max_wait=0.01)
async def remote(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


class Encoder:
    @batched(max_batch_size=64)
    def encode(self, texts: list[str]) -> list[bytes]:
        return [text.encode() for text in texts]


async def uses_batches() -> None:
    assert_type(await vectors("a"), list[float])
    assert_type(await remote("a"), int)
    assert_type(await Encoder().encode("a"), bytes)


passed_on: Callable[[str], Coroutine[Any, Any, int]] = fetch


async def call() -> None:
    assert_type(await fetch("http://x"), int)
    assert_type(await acall(thumb, "a.png"), Any)
    assert_type([value async for value in task_map(fetch, ["http://x"])], list[int])
    assert_type([pair async for pair in task_map(thumb, ["a"]).indexed()], list[tuple[int, bytes]])
    assert_type(await task_map(fetch, ["http://x"]).apublish(), list[Any])
