"""Threads are bounded, started as needed, kept for the next input, and end when idle."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from celery_concurrent.pool.threads import Threads
from tests.services.waiting import wait_for


@pytest.fixture
def make() -> Iterator[Any]:
    made: list[Threads] = []

    def make(**options: Any) -> Threads:
        made.append(Threads("unit-threads", **options))
        return made[-1]

    yield make
    for threads in made:
        threads.close()


def test_work_that_blocks_gets_a_thread_each(make: Any) -> None:
    threads, together = make(), threading.Barrier(9)
    for _ in range(8):
        threads.submit(lambda: together.wait(5.0))
    together.wait(5.0)
    assert threads.count == 8


def test_a_free_thread_is_used_again(make: Any) -> None:
    threads = make()
    used: list[int] = []

    def idle_after(used: list[int], number: int) -> bool:
        return len(used) == number and len(threads._idle) == 1

    for number in range(1, 21):
        threads.submit(lambda: used.append(threading.get_ident()))
        wait_for(partial(idle_after, used, number))
    assert len(set(used)) == 1
    assert threads.count == 1


def test_a_burst_onto_one_idle_thread_starts_more(make: Any) -> None:
    """An idle thread that was given work and did not wake yet is given no more."""
    threads = make()
    threads.submit(lambda: None)
    wait_for(lambda: len(threads._idle) == 1)
    together = threading.Barrier(5)
    for _ in range(4):
        threads.submit(lambda: together.wait(5.0))
    together.wait(5.0)


def test_their_number_is_bounded_and_all_work_is_done(make: Any) -> None:
    threads = make(most=3)
    lock = threading.Lock()
    at_once, peak, done = 0, 0, 0
    go = threading.Event()

    def work() -> None:
        nonlocal at_once, peak, done
        with lock:
            at_once += 1
            peak = max(peak, at_once)
        go.wait(5.0)
        with lock:
            at_once -= 1
            done += 1

    for _ in range(50):
        threads.submit(work)
    wait_for(lambda: at_once == 3)
    go.set()
    wait_for(lambda: done == 50)
    assert peak == 3
    assert threads.count == 3


def test_idle_threads_end_and_new_ones_start(make: Any) -> None:
    threads = make(idle_timeout=0.05)
    threads.submit(lambda: None)
    wait_for(lambda: threads.count == 0)
    called = threading.Event()
    threads.submit(called.set)
    assert called.wait(5.0)


def test_no_work_is_lost_between_idling_and_ending(make: Any) -> None:
    threads = make(idle_timeout=0.0005, most=2)
    done: list[int] = []

    def has(done: list[int], number: int) -> bool:
        return len(done) == number

    for number in range(1, 301):
        threads.submit(lambda: done.append(1))
        if number % 10 == 0:
            wait_for(partial(has, done, number))
    assert len(done) == 300


def test_closing_ends_idle_threads_and_lets_busy_ones_finish(make: Any) -> None:
    threads = make()
    go, done = threading.Event(), threading.Event()

    def busy() -> None:
        go.wait(5.0)
        done.set()

    threads.submit(busy)
    threads.submit(lambda: None)
    wait_for(lambda: len(threads._idle) == 1)
    threads.close()
    wait_for(lambda: threads.count == 1)
    go.set()
    assert done.wait(5.0)
    wait_for(lambda: threads.count == 0)


def test_they_do_not_keep_the_process_from_ending(make: Any) -> None:
    threads = make()
    daemons: list[bool] = []
    threads.submit(lambda: daemons.append(threading.current_thread().daemon))
    wait_for(lambda: daemons)
    assert daemons == [True]


def test_an_idle_thread_keeps_nothing_of_its_last_work_alive(make: Any) -> None:
    import weakref

    class Payload: ...

    threads, payload = make(), Payload()
    gone = weakref.ref(payload)

    def holding(payload: Payload) -> Callable[[], None]:
        return partial(print, payload)

    threads.submit(holding(payload))
    wait_for(lambda: len(threads._idle) == 1)
    del payload
    assert gone() is None


def test_what_starts_a_thread_can_be_chosen(make: Any) -> None:
    """eventlet's green threads come in here."""
    started: list[str] = []

    def spawn(run: Callable[[], None], name: str) -> None:
        started.append(name)
        threading.Thread(target=run, daemon=True).start()

    called = threading.Event()
    make(spawn=spawn).submit(called.set)
    assert called.wait(5.0)
    assert started[0].startswith("unit-threads-")


def test_work_waits_for_a_busy_thread_where_the_system_gives_no_other(make: Any) -> None:
    started: list[str] = []

    def spawn(run: Callable[[], None], name: str) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(name)
        threading.Thread(target=run, daemon=True).start()

    threads, go, done = make(spawn=spawn), threading.Event(), threading.Event()
    threads.submit(lambda: go.wait(5.0))
    threads.submit(done.set)
    assert threads.count == 1
    go.set()
    assert done.wait(5.0)


def test_work_without_any_thread_is_refused_and_not_run_later(make: Any) -> None:
    fails = [True]

    def spawn(run: Callable[[], None], name: str) -> None:
        if fails.pop():
            raise RuntimeError("can't start new thread")
        threading.Thread(target=run, daemon=True).start()

    threads, done = make(spawn=spawn), []
    with pytest.raises(RuntimeError, match="can't start"):
        threads.submit(lambda: done.append("refused"))
    fails.append(False)
    threads.submit(lambda: done.append("run"))
    wait_for(lambda: done == ["run"])
    assert threads.count == 1


def test_the_thread_that_fell_idle_last_is_used_first(make: Any) -> None:
    threads, together = make(), threading.Barrier(3)
    for _ in range(2):
        threads.submit(lambda: together.wait(5.0))
    together.wait(5.0)
    wait_for(lambda: len(threads._idle) == 2)
    used: set[int] = set()
    for _ in range(10):
        threads.submit(lambda: used.add(threading.get_ident()))
        wait_for(lambda: used and len(threads._idle) == 2)
    assert len(used) == 1


def test_an_interrupter_that_has_not_interrupted_leaves_the_thread_alone() -> None:
    """Below a profiler, CPython 3.11 would never leave the function that took back nothing.

    In a process of its own, for one that took something back in earnest leaves its mark there.
    """
    code = """
import sys
from celery_concurrent.pool.threads import ThreadInterrupter
interrupter = ThreadInterrupter()
sys.setprofile(lambda *_: None)
for turn in range(3):
    interrupter.clear()
sys.setprofile(None)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
