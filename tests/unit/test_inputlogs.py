"""Which lines of inputs a node keeps."""

from __future__ import annotations

import logging
import sys

from celery_concurrent.inputlogs import LONGEST, InputLogs


def record(text: str, *args: object, error: bool = False) -> logging.LogRecord:
    info = sys.exc_info() if error else None
    return logging.LogRecord("shop", logging.INFO, __file__, 1, text, args, info)


def texts(logs: InputLogs, input_id: str) -> list[str]:
    kept = logs.of(input_id)
    return [] if kept is None else [line["text"] for line in kept["lines"]]


def test_each_input_has_its_own_lines() -> None:
    logs = InputLogs(10)
    logs.keep("a", record("one %d", 1))
    logs.keep("b", record("two"))
    logs.keep("a", record("three"))
    assert texts(logs, "a") == ["one 1", "three"]
    assert texts(logs, "b") == ["two"]
    assert logs.of("c") is None


def test_the_first_lines_of_an_input_make_room_for_later_ones() -> None:
    logs = InputLogs(3)
    for number in range(5):
        logs.keep("a", record("%d", number))
    kept = logs.of("a")
    assert kept is not None
    assert texts(logs, "a") == ["2", "3", "4"]
    assert kept["dropped"] == 2


def test_inputs_that_are_silent_the_longest_are_forgotten_first() -> None:
    logs = InputLogs(10, characters=1000)
    for name in ("a", "b", "c"):
        logs.keep(name, record("x" * 100))
    logs.keep("a", record("x" * 100))
    assert texts(logs, "b") == []
    assert len(texts(logs, "a")) == 2
    assert len(texts(logs, "c")) == 1


def test_what_is_kept_does_not_grow_with_what_is_said() -> None:
    logs = InputLogs(200, characters=10_000)
    for number in range(5_000):
        logs.keep(f"input-{number}", record("x" * 50))
    kept = [number for number in range(5_000) if logs.of(f"input-{number}") is not None]
    assert kept == list(range(5_000 - len(kept), 5_000))
    assert 0 < len(kept) * 50 <= 10_000


def test_a_line_that_is_logged_while_another_one_is_kept_stops_nothing() -> None:
    """As a finalizer may log, which the garbage collector runs."""
    logs = InputLogs(10)

    class Nested(logging.LogRecord):
        @property
        def levelname(self) -> str:
            with logs._lock:  # as where the collector runs in the midst of keeping
                logs.keep("a", record("nested"))
            return "INFO"

        @levelname.setter
        def levelname(self, _: str) -> None: ...

    logs.keep("a", Nested("shop", logging.INFO, __file__, 1, "outer", (), None))
    assert texts(logs, "a") == ["nested", "outer"]


def test_a_long_line_is_cut() -> None:
    logs = InputLogs(10)
    logs.keep("a", record("x" * (LONGEST + 1)))
    assert texts(logs, "a") == ["x" * LONGEST + "..."]


def test_a_traceback_is_part_of_the_line() -> None:
    logs = InputLogs(10)
    try:
        raise ValueError("wrong")
    except ValueError:
        logs.keep("a", record("it failed", error=True))
    (text,) = texts(logs, "a")
    assert text.startswith("it failed\nTraceback")
    assert text.endswith("ValueError: wrong")


def test_arguments_that_do_not_fit_their_text_end_nothing() -> None:
    logs = InputLogs(10)
    logs.keep("a", record("%d items", "many"))
    assert texts(logs, "a") == ["'%d items' (TypeError in its arguments)"]
