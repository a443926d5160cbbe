"""What a node may run while its device's memory is short, and after an input ran out of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from celery_concurrent import ConfigurationError
from celery_concurrent.gpu.device import Memory
from celery_concurrent.gpu.guard import Guarded, MemoryGuard, is_out_of_memory, ran_out, watched

FREE = Guarded()
TARGETS = {"embed": 24, "rank": 2}


def free(share: float) -> Memory:
    return Memory(total=1000, free=round(share * 1000))


def error_of(module: str, name: str, text: str = "", base: type[Exception] = RuntimeError) -> Any:
    """An error as a library would raise it, by a class of the same name and module."""
    return type(name, (base,), {"__module__": module})(text)


class Host:
    """What a guard told its node."""

    def __init__(self) -> None:
        self.told: list[Mapping[str, int]] = []
        self.reasons: list[str | None] = []
        self.guard = MemoryGuard(targets=TARGETS, on_change=self.note)

    def note(self, ceilings: Mapping[str, int], reason: str | None) -> None:
        self.told.append(ceilings)
        self.reasons.append(reason)


def test_with_less_than_the_margin_free_every_function_keeps_to_its_target() -> None:
    short = watched(FREE, [free(0.099)])
    assert short.ceilings(TARGETS) == TARGETS
    assert short.reason == "9.9% of the device's memory is free: no new input above target"


def test_with_the_margin_free_nothing_is_held() -> None:
    assert watched(FREE, [free(0.1)]) == FREE
    assert FREE.ceilings(TARGETS) == {}
    assert FREE.reason is None


def test_nothing_is_held_when_memory_is_back() -> None:
    assert watched(watched(FREE, [free(0.01)]), [free(0.5)]) == FREE


def test_the_device_with_the_least_memory_counts() -> None:
    assert watched(FREE, [free(0.9), free(0.05)]).short == free(0.05)


def test_unknown_memory_changes_nothing() -> None:
    short = watched(FREE, [free(0.01)])
    assert watched(FREE, [None]) == FREE
    assert watched(FREE, []) == FREE
    assert watched(short, [None]) == short
    assert watched(short, [None, free(0.9)]) == short, "the unknown one may be the short one"
    assert watched(FREE, [None, free(0.01)]).short is not None


def test_the_margin_can_be_chosen() -> None:
    assert watched(FREE, [free(0.15)], margin=0.2).short is not None
    assert watched(FREE, [free(0.0)], margin=0.0) == FREE


def after_errors(*running: int, guarded: Guarded = FREE) -> Guarded:
    """After inputs of ``embed`` ran out of memory, one by one."""
    for count in running:
        guarded = ran_out(guarded, "embed", target=24, running=count)
    return guarded


def test_an_out_of_memory_error_lowers_the_limit_to_target() -> None:
    lowered = after_errors(30)
    assert lowered.ceilings(TARGETS) == {"embed": 24}
    assert lowered.reason == "an input of embed ran out of device memory: its limit is 24"


def test_at_or_below_target_the_limit_becomes_one_less_than_ran() -> None:
    assert after_errors(24).lowered == {"embed": 23}
    assert after_errors(2).lowered == {"embed": 1}


def test_the_limit_is_lowered_only_once() -> None:
    assert after_errors(10, 5) == after_errors(10)


def test_each_functions_limit_is_lowered_for_itself() -> None:
    both = ran_out(after_errors(10), "rank", target=2, running=2)
    assert both.lowered == {"embed": 9, "rank": 1}


def test_an_input_that_ran_alone_lowers_nothing() -> None:
    assert after_errors(1) == FREE
    assert after_errors(1, 8).lowered == {"embed": 7}


def test_short_memory_and_a_lowered_limit_hold_together() -> None:
    both = watched(after_errors(10), [free(0.01)])
    assert both.ceilings(TARGETS) == {"embed": 9, "rank": 2}
    assert both.reason is not None
    assert "its limit is 9; 1.0% of" in both.reason
    assert watched(both, [free(0.9)]).lowered == {"embed": 9}, "the lowered limit stays"


TORCH = "CUDA out of memory. Tried to allocate 20.00 MiB"
OUT_OF_MEMORY = {
    "torch": error_of("torch", "OutOfMemoryError", TORCH),
    "torch.cuda": error_of("torch.cuda", "OutOfMemoryError"),
    "subclass of torch's": type("Own", (type(error_of("torch", "OutOfMemoryError")),), {})(),
    "old torch": RuntimeError(TORCH),
    "driver": RuntimeError("CUDA error: out of memory"),
    "cupy": error_of("cupy.cuda.memory", "OutOfMemoryError", base=MemoryError),
    "driver's own name": RuntimeError("cuMemAlloc failed: CUDA_ERROR_OUT_OF_MEMORY"),
    "tensorflow": error_of("tensorflow.python.framework.errors_impl", "ResourceExhaustedError"),
    "jaxlib": error_of("jaxlib.xla_extension", "XlaRuntimeError", "RESOURCE_EXHAUSTED: Out of"),
    "jax": error_of("jax.errors", "JaxRuntimeError", "RESOURCE_EXHAUSTED: Out of memory"),
}
OTHERS = {
    "the host's memory": MemoryError("CUDA out of memory"),
    "RuntimeError": RuntimeError("CUDA error: device-side assert triggered"),
    "ValueError": ValueError(TORCH),
    "namesake": error_of("shop.errors", "OutOfMemoryError"),
    "name alone": error_of("torchy", "OutOfMemoryError"),
    "torch": error_of("torch", "TorchError", "RESOURCE_EXHAUSTED"),
    "grpc": error_of("grpc", "RpcError", "RESOURCE_EXHAUSTED: quota"),
    "jax": error_of("jaxlib.xla_extension", "XlaRuntimeError", "INTERNAL: no"),
}


@pytest.mark.parametrize("name", OUT_OF_MEMORY)
def test_an_out_of_memory_error_is_known_without_its_library(name: str) -> None:
    assert is_out_of_memory(OUT_OF_MEMORY[name])


@pytest.mark.parametrize("name", OTHERS)
def test_another_error_is_not_taken_for_one(name: str) -> None:
    assert not is_out_of_memory(OTHERS[name])


def test_an_error_with_an_out_of_memory_cause_is_one() -> None:
    wrapped = ValueError("no vectors")
    wrapped.__cause__ = OUT_OF_MEMORY["torch"]
    assert is_out_of_memory(wrapped)


def test_an_error_raised_after_one_was_handled_is_not() -> None:
    later = ValueError("no vectors")
    later.__context__ = OUT_OF_MEMORY["torch"]
    assert not is_out_of_memory(later)


def test_a_group_with_an_out_of_memory_error_is_one() -> None:
    class GroupError(Exception):  # as Python 3.11's, which 3.10 lacks
        exceptions = (ValueError(), OUT_OF_MEMORY["torch"])

    assert is_out_of_memory(GroupError())


def test_causes_that_go_in_a_circle_end() -> None:
    one, other = ValueError(), ValueError()
    one.__cause__, other.__cause__ = other, one
    assert not is_out_of_memory(one)


def test_the_node_is_told_of_changes_only() -> None:
    host = Host()
    for share in (0.05, 0.04, 0.5, 0.6):
        host.guard.look([free(share)])
    assert host.told == [TARGETS, {}]
    assert host.reasons == [
        "5.0% of the device's memory is free: no new input above target",
        None,
    ]


def test_a_burst_of_out_of_memory_errors_is_told_once() -> None:
    host = Host()
    for running in (30, 29, 28):
        host.guard.failed(OUT_OF_MEMORY["torch"], "embed", running=running)
    host.guard.failed(ValueError(), "embed", running=2)
    host.guard.failed(OUT_OF_MEMORY["torch"], "no function of this node", running=2)
    assert host.told == [{"embed": 24}]


def test_a_guard_that_stands_aside_holds_nothing_for_memory_that_it_cannot_read() -> None:
    host = Host()
    host.guard.look([free(0.05)])
    host.guard.failed(OUT_OF_MEMORY["torch"], "embed", running=20)
    host.guard.stand_aside()
    assert host.told == [TARGETS, {"embed": 19, "rank": 2}, {"embed": 19}]


@pytest.mark.parametrize("margin", [-0.1, 1.0, 10, True, "0.1", None])
def test_a_margin_that_cannot_work_is_refused(margin: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"margin={margin!r} must lie in"):
        MemoryGuard(targets={}, on_change=lambda ceilings, reason: None, margin=margin)
