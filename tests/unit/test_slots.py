"""Who may run: limits of groups, the cap of a node, and the order of those who wait."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from celery_concurrent import Limits
from celery_concurrent.pool.slots import PLAIN, Slots


@dataclass(eq=False)
class Holder:
    group: str
    number: int = 0


def slots(cap: int | None = None, plain: int = 1, **limits: int) -> Slots[Holder]:
    return Slots(
        {name: Limits(max_inputs=most) for name, most in limits.items()},
        plain=plain,
        cap=cap,
        counted=limits,
    )


def taken(slots: Slots[Holder], group: str, count: int) -> list[Holder]:
    holders = [Holder(group, number) for number in range(count)]
    for holder in holders:
        slots.take(holder)
    return holders


def test_a_group_has_as_many_slots_as_its_limit_says() -> None:
    two = slots(a=2)
    assert [two.take(Holder("a")) for _ in range(3)] == [True, True, False]
    assert (two.running, two.total, len(two.groups["a"].waiting)) == (2, 2, 1)


def test_a_slot_that_comes_back_goes_to_the_longest_waiting() -> None:
    one = slots(a=1)
    first, second, third = taken(one, "a", 3)
    assert one.give_back(first) == [second]
    assert one.give_back(second) == [third]
    assert one.give_back(third) == []
    assert one.running == 0


def test_no_input_overtakes_those_that_wait() -> None:
    one = slots(a=1)
    first, waiting = taken(one, "a", 2)
    one.groups["a"].limit = 2  # room, but nobody was admitted yet
    late = Holder("a")
    assert not one.take(late)
    assert one.give_back(first) == [waiting, late]


def test_a_slot_passes_to_the_longest_waiting() -> None:
    one = slots(a=1)
    first, second, third = taken(one, "a", 3)
    assert one.pass_on(first, lambda _: True) is second
    assert one.pass_on(second, lambda _: True) is third
    assert (one.running, one.finished) == (1, 2)
    assert one.pass_on(third, lambda _: True) is None
    assert (one.running, one.groups["a"].running, one.finished) == (1, 1, 2)
    assert one.give_back(third) == []
    assert one.running == 0


def test_a_slot_does_not_pass_over_who_may_not_follow() -> None:
    one = slots(a=1)
    first, second, third = taken(one, "a", 3)
    assert one.pass_on(first, lambda first: first is third) is None
    assert one.give_back(first) == [second]


@pytest.mark.parametrize("lower", [lambda two: two.set_limit("a", 1), lambda two: two.resize(1)])
def test_a_slot_above_a_lower_limit_does_not_pass(lower: Callable[[Slots[Holder]], Any]) -> None:
    two = slots(a=2)
    first, second, third = taken(two, "a", 3)
    lower(two)
    assert two.pass_on(first, lambda _: True) is None
    assert two.give_back(first) == []
    assert two.pass_on(second, lambda _: True) is third
    assert two.running == 1


def test_a_slot_passes_within_its_group() -> None:
    both = slots(a=1, b=1)
    (first,), (_, waiting) = taken(both, "a", 1), taken(both, "b", 2)
    assert both.pass_on(first, lambda _: True) is None
    assert list(both.groups["b"].waiting) == [waiting]


def test_a_signal_handler_may_give_a_slot_back_in_the_midst_of_a_call() -> None:
    """As Celery's does in a cold stop, on the thread that it interrupts."""
    two = slots(a=2)
    first, second, _ = taken(two, "a", 3)

    def interrupted(_: Holder) -> bool:  # asked within the lock
        two.give_back(second)
        return False

    calling = threading.Thread(target=two.pass_on, args=(first, interrupted), daemon=True)
    calling.start()
    calling.join(10)
    assert not calling.is_alive()
    assert two.running == 2


def test_a_full_group_does_not_hold_up_another() -> None:
    both = slots(a=1, b=1)
    taken(both, "a", 5)
    assert both.take(Holder("b"))


def test_a_cap_holds_for_the_node_and_is_shared_out() -> None:
    capped = slots(cap=5, a=10, b=10)
    assert capped.total == 5
    assert {name: capped.groups[name].limit for name in "ab"} in (
        {"a": 2, "b": 3},
        {"a": 3, "b": 2},
    )
    taken(capped, "a", 10)
    taken(capped, "b", 10)
    assert capped.running == 5


def test_a_slot_under_a_cap_may_go_to_another_group() -> None:
    """One slot for two groups: each may have it, and who waits gets it from whom it comes."""
    single = slots(cap=1, a=5, b=5)
    (first,) = taken(single, "a", 1)
    (waiting,) = taken(single, "b", 1)
    assert single.running == 1
    assert single.give_back(first) == [waiting]


def test_plain_tasks_have_slots_of_their_own() -> None:
    mixed = slots(a=1, plain=2)
    taken(mixed, "a", 1)
    assert [mixed.take(Holder(PLAIN)) for _ in range(3)] == [True, True, False]
    assert mixed.total == 1  # the node does not consume plain tasks' queue


def test_a_node_of_plain_tasks_counts_their_slots() -> None:
    assert slots(plain=7).total == 7


def test_the_lines_can_be_emptied() -> None:
    both = slots(a=1, b=1)
    a, b = taken(both, "a", 3), taken(both, "b", 2)
    assert both.forget_waiting() == [*a[1:], *b[1:]]
    assert both.give_back(a[0]) == []
    assert both.running == 1


def test_a_lower_limit_lets_run_what_runs() -> None:
    three = slots(a=3)
    first, second, third = taken(three, "a", 3)
    (waiting,) = taken(three, "a", 1)
    assert three.set_limit("a", 1) == []
    assert three.running == 3
    assert three.give_back(first) == []
    assert three.give_back(second) == []
    assert three.give_back(third) == [waiting]


def test_a_higher_limit_admits_at_once() -> None:
    one = slots(a=3)
    one.set_limit("a", 1)
    _, second, third = taken(one, "a", 3)
    assert one.set_limit("a", 3) == [second, third]


def test_resizing_shares_out_and_admits() -> None:
    both = slots(a=4, b=4)
    taken(both, "a", 4)
    taken(both, "b", 4)
    assert both.resize(2) == []
    assert (both.total, both.groups["a"].limit, both.groups["b"].limit) == (2, 1, 1)
    small = slots(cap=1, a=4, b=4)
    _, *waiting = taken(small, "a", 4)
    assert small.resize(8) == waiting
    assert small.total == 8


def test_resizing_beyond_max_inputs_only_helps_plain_tasks() -> None:
    assert slots(a=4).largest == 4
    plain = slots(plain=2)
    assert plain.largest is None
    plain.resize(9)
    assert plain.total == 9
    concurrent = slots(a=4)
    concurrent.resize(9)
    assert concurrent.total == 4


def test_a_shrunk_node_of_plain_tasks_grows_again() -> None:
    plain = slots(plain=4)
    plain.resize(2)
    plain.resize(4)
    assert plain.total == 4


def test_a_limit_is_never_exceeded_whatever_happens() -> None:
    numbers = random.Random(3)
    names = ["a", "b", "c"]
    many = slots(cap=6, a=4, b=3, c=2)
    held: list[Holder] = []
    for _ in range(20_000):
        if held and numbers.random() < 0.5:
            back = held.pop(numbers.randrange(len(held)))
            following = many.pass_on(back, lambda _: numbers.random() < 0.5)
            held.extend(many.give_back(back) if following is None else [following])
        else:
            holder = Holder(numbers.choice(names))
            if many.take(holder):
                held.append(holder)
        counts = {name: sum(h.group == name for h in held) for name in names}
        assert all(counts[name] <= many.groups[name].limit for name in names)
        assert many.running == len(held) <= 6
        free = {n for n in names if counts[n] < many.groups[n].limit and many.running < 6}
        assert not any(many.groups[name].waiting for name in free), "a free slot, and one waits"


def test_threads_may_take_and_give_back_at_once() -> None:
    two = slots(a=2)
    lock = threading.Lock()
    at_once = 0
    peaks: list[int] = []

    def run(holders: list[Holder]) -> None:
        nonlocal at_once
        for holder in holders:  # grows by those that each one lets in
            with lock:
                at_once += 1
                peaks.append(at_once)
            with lock:
                at_once -= 1
            following = two.pass_on(holder, lambda first: first.number % 2 == 0)
            holders.extend(two.give_back(holder) if following is None else [following])

    def use() -> None:
        for number in range(1_000):
            holder = Holder("a", number)
            if two.take(holder):
                run([holder])

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(peaks) == 4_000
    assert max(peaks) <= 2
    assert two.running == two.groups["a"].running == 0


def test_under_a_ceiling_nothing_starts_and_what_runs_runs_on() -> None:
    held = slots(a=4)
    first, *others = taken(held, "a", 3)
    assert held.hold({"a": 2}) == []
    late = Holder("a")
    assert not held.take(late)
    assert held.give_back(first) == []
    assert held.give_back(others[0]) == [late]
    assert (held.running, held.total, held.size) == (2, 2, 4)


def test_who_waits_starts_when_the_ceiling_is_lifted() -> None:
    held = slots(a=4, b=4)
    held.hold({"a": 1, "b": 1})
    _, *waiting = taken(held, "a", 3)
    assert held.hold({"b": 1}) == waiting
    node, groups = held.figures()
    assert (groups["a"].slots, groups["b"].slots, node.slots) == (4, 1, 5)


def test_limits_that_are_changed_below_a_ceiling_count_when_it_is_lifted() -> None:
    held = slots(a=8)
    held.hold({"a": 6})
    held.set_limit("a", 4)
    assert held.total == 4
    held.set_limit("a", 8)
    assert held.total == 6
    held.hold({})
    assert held.total == 8


def test_the_last_who_may_leave_the_line_leave_it_and_the_others_keep_their_order() -> None:
    one = slots(a=1)
    first, *waiting = taken(one, "a", 8)
    assert one.first_in_line("a") is waiting[0]
    odd = waiting[::2]
    assert one.withdraw("a", 3, lambda holder: holder in odd) == odd[1:]
    assert one.withdraw("a", 0, lambda holder: True) == []
    assert one.withdraw("a", 9, lambda holder: holder in odd) == odd[:1]
    for holder, following in zip([first, *waiting[1::2]], waiting[1::2], strict=False):
        assert one.give_back(holder) == [following]
    assert one.give_back(waiting[5]) == []
    assert one.first_in_line("a") is None


@pytest.mark.parametrize(("cap", "expected"), [(None, False), (1, True), (2, False), (9, False)])
def test_groups_wait_for_each_other_under_a_cap_of_less_than_one_slot_for_each(
    cap: int | None, expected: bool
) -> None:
    assert slots(cap, a=5, b=5).is_oversubscribed is expected
