"""Exceptions thrown into a thread arrive in the input they were meant for, or nowhere."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from celery_concurrent import InputCancellation
from celery_concurrent.pool.inputs import Input
from celery_concurrent.pool.threads import ThreadInterrupter
from tests.services.waiting import wait_for
from tests.unit.test_inputs import SoftLimitError, made, run_as

ROUNDS = 3_000


def spin(seconds: float) -> None:
    """Run bytecodes, between any two of which an exception may be raised."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


class Storm:
    """Runs inputs one after another on one thread; says how each ended."""

    def __init__(self) -> None:
        self.inputs: list[Input] = []
        self.outcomes: list[str] = []
        self.astray: list[BaseException] = []
        self.begun = threading.Semaphore(0)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while len(self.inputs) < ROUNDS:
            try:
                self.outcomes.append(self._one())
                spin(0.00003)  # what comes too late would be raised here
            except BaseException as error:
                self.astray.append(error)

    def _one(self) -> str:
        input = made(ThreadInterrupter())
        self.inputs.append(input)
        self.begun.release()
        try:
            outcome: str = run_as(input, self._function)
        except SoftLimitError:
            outcome = "warned"
        except InputCancellation:
            outcome = "ended"
        if not input.left:
            return f"{outcome} and still interruptible"
        if (outcome == "ended") != (input.ended is not None):
            return f"{outcome} though it was {input.ended or 'not ended'}"
        return outcome

    def _function(self) -> str:
        spin(0.0001)
        return "returned"


@pytest.mark.parametrize("kind", ["end", "warn", "both"])
def test_a_storm_raises_only_within_the_functions_of_its_inputs(kind: str) -> None:
    storm = Storm()
    for number in range(ROUNDS):
        storm.begun.acquire()
        spin((number % 50) * 0.000003)  # every moment of an input's life
        if kind != "end":
            storm.inputs[number].warn(SoftLimitError)
        if kind != "warn":
            storm.inputs[number].end("storm")
    storm.thread.join(30.0)
    assert storm.astray == []
    assert len(storm.outcomes) == ROUNDS
    expected = {"end": {"ended"}, "warn": {"warned"}, "both": {"ended", "warned"}}[kind]
    assert set(storm.outcomes) <= expected | {"returned"}
    assert "returned" in storm.outcomes, "the storm always hit"
    assert set(storm.outcomes) & expected, "the storm never hit"


def test_one_input_of_many_is_hit_and_no_sibling() -> None:
    released = threading.Event()
    inputs = [made() for _ in range(8)]
    outcomes: dict[int, str] = {}

    def function() -> str:
        while not released.wait(0.001):
            pass
        return "returned"

    def run(place: int, input: Input) -> None:
        input.interrupter = ThreadInterrupter()
        try:
            outcomes[place] = run_as(input, function)
        except InputCancellation:
            outcomes[place] = "ended"

    threads = [threading.Thread(target=run, args=each) for each in enumerate(inputs)]
    for thread in threads:
        thread.start()
    wait_for(lambda: all(input.entered for input in inputs))
    assert inputs[3].end("this one")
    threads[3].join(5.0)
    assert outcomes == {3: "ended"}
    released.set()
    for thread in threads:
        thread.join(5.0)
    assert outcomes == {place: "ended" if place == 3 else "returned" for place in range(8)}


def test_an_input_that_swallows_its_cancellation_has_not_returned() -> None:
    swallowed: list[Any] = []

    def function() -> str:
        try:
            spin(5.0)
        except InputCancellation as error:
            swallowed.append(error)
        return "returned all the same"

    outcomes: list[Any] = []
    input = made()

    def run() -> None:
        input.interrupter = ThreadInterrupter()
        try:
            outcomes.append(run_as(input, function))
        except InputCancellation as error:
            outcomes.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: input.entered)
    assert input.end("revoked")
    thread.join(5.0)
    assert len(swallowed) == 1
    assert outcomes == ["revoked"]


def test_except_exception_does_not_swallow_a_cancellation() -> None:
    assert not issubclass(InputCancellation, Exception)
