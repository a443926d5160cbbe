"""What is on record of a local node, at each instant of its life."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from celery_concurrent.autoscaler.local import adoption, commands, folder, safety
from celery_concurrent.autoscaler.local.folder import Folder, broker_of, slug, state_folder
from celery_concurrent.autoscaler.local.processes import Handle, Identity, boot, stat
from celery_concurrent.autoscaler.local.records import Record, Records, sign
from celery_concurrent.autoscaler.provider import NodeProcess, ProcessState, ProviderError
from celery_concurrent.errors import ConfigurationError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and pidfd")


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path)


def record(name: str = "work-1@here", since: str | None = None) -> Record:
    return Record(name=name, queue="work", boot=since or boot(), env={"A": "1"})


def me() -> Identity:
    found = stat(os.getpid())
    assert found is not None
    return found.identity


def test_a_record_whose_process_has_not_signed_is_a_node_to_be(records: Records) -> None:
    fd = records.create(record())
    (found,) = adoption.find(records, ())
    assert (found.record, found.handle) == (record(), None)
    os.close(fd)


def test_a_record_that_nobody_signed_nor_holds_is_removed(records: Records) -> None:
    os.close(records.create(record()))
    assert not list(adoption.find(records, ()))
    assert not list(records.all())


def test_a_lock_outlives_its_maker_as_long_as_a_child_has_it(records: Records) -> None:
    fd = records.create(record())
    child = subprocess.Popen(["sleep", "60"], pass_fds=[fd])
    os.close(fd)
    try:
        assert records.is_locked("work-1@here")
    finally:
        child.kill()
        child.wait()
    assert not records.is_locked("work-1@here")


def test_a_signed_record_is_the_process_that_signed(records: Records) -> None:
    sign(records.create(record()), me())
    (found,) = adoption.find(records, ())
    assert found.handle is not None
    assert found.handle.identity == me()
    found.handle.close()
    assert not list(adoption.find(records, {"work-1@here"}))


def test_a_process_that_signs_while_it_is_looked_for_is_found(tmp_path: Path) -> None:
    class Signing(Records):
        def is_locked(self, name: str) -> bool:
            sign(fd, me())
            return False

    records = Signing(tmp_path)
    fd = records.create(record())
    (found,) = adoption.find(records, ())
    assert found.handle is not None
    found.handle.close()


def test_a_recycled_id_is_another_process(records: Records) -> None:
    other = Identity(pid=os.getpid(), start=me().start - 1)
    assert Handle.of(other) is None
    sign(records.create(record()), other)
    assert not list(adoption.find(records, ()))


def test_a_record_of_another_boot_is_nobodys(records: Records) -> None:
    sign(records.create(record(since="another")), me())
    assert not list(adoption.find(records, ()))


def test_half_a_line_is_no_signature(records: Records) -> None:
    fd = records.create(record())
    os.write(fd, b'{"pid": 1')
    found = records.get("work-1@here")
    os.close(fd)
    assert found is not None
    assert found.process is None


def test_a_zombie_is_no_node() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    found = stat(child.pid)
    assert found is not None
    assert Handle.of(found.identity) is None
    child.wait()


def test_a_name_is_given_once(records: Records, tmp_path: Path) -> None:
    (tmp_path / "work-1.new").touch()
    with pytest.raises(FileExistsError):
        records.create(record())
    records.sweep()
    os.close(records.create(record()))


def test_a_drain_mark_is_read_back(records: Records, tmp_path: Path) -> None:
    os.close(records.create(record()))
    assert records.draining_until("work-1@here") is None
    records.mark_draining("work-1@here", 12.5)
    assert records.draining_until("work-1@here") == 12.5
    records.remove("work-1@here")
    assert not list(tmp_path.iterdir())


def test_the_state_folder_is_the_users_own(tmp_path: Path) -> None:
    held = Folder(tmp_path / "state")
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    held.close()
    here = {"XDG_STATE_HOME": str(tmp_path)}
    assert state_folder("shop.app:a", "broker", here).is_relative_to(tmp_path)
    assert state_folder("shop", "broker", {"XDG_STATE_HOME": "here"}).is_relative_to(Path.home())


def test_deployments_at_different_brokers_have_different_state_folders(tmp_path: Path) -> None:
    here = {"XDG_STATE_HOME": str(tmp_path)}
    folders = {state_folder("shop", broker, here) for broker in ("a:1/0#", "a:1/1#", "b:1/0#")}
    assert len(folders) == 3
    assert state_folder("shop", "a:1/0#", here) in folders


@pytest.mark.parametrize(
    ("url", "options", "told"),
    [
        ("redis://:secret@here:1/3", {}, "here:1/3#"),
        ("redis://here:1/3", {"global_keyprefix": "shop"}, "here:1/3#shop"),
        ("redis+socket://:secret@/a/b?virtual_host=2", {}, "redis+socket:///a/b?virtual_host=2:"),
        ("amqp://user:secret@here/staging", {}, "here:5672/staging#"),
        ("amqp://other:secret@here//;amqp://there//", {}, "here:5672//#"),
        ("sqla+sqlite:////a/b.db", {}, "sqla+sqlite:////a/b.db:"),
    ],
)
def test_a_broker_is_told_apart_without_its_credentials(
    app: Any, url: str, options: dict[str, str], told: str
) -> None:
    if url.startswith("sqla"):
        pytest.importorskip("sqlalchemy")
    app.conf.update(broker_url=url, broker_transport_options=options)
    assert broker_of(app).startswith(told)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProviderError, match="state folder"):
        Folder(tmp_path / "file" / "state")


def test_the_oldest_logs_of_ended_nodes_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "KEPT_LOGS", 2)
    held = Folder(tmp_path)
    for age, name in enumerate(["d", "c", "b", "a"]):
        held.log_path(name).write_text("x")
        os.utime(held.log_path(name), (1000 - age, 1000 - age))
    held.prune_logs({"a@here"})
    assert sorted(path.stem for path in held.logs.iterdir()) == ["a", "c", "d"]
    held.close()


@pytest.mark.parametrize(("text", "made"), [("a b/c", "a-b-c"), ("..", "x"), ("é", "x")])
def test_a_slug_is_a_plain_name(text: str, made: str) -> None:
    assert slug(text) == made


def test_the_broker_is_not_passed_in_an_argument() -> None:
    with pytest.raises(ConfigurationError, match="option --broker must not be passed"):
        commands.Command(app="shop", options=("--broker=redis://:secret@here",))


def test_a_queue_with_a_comma_is_refused() -> None:
    class Fleet:
        queue = "a,b"
        gpus = 0.0

    with pytest.raises(ConfigurationError, match="'a,b' cannot have a fleet"):
        commands.Command(app="shop").words(Fleet(), "x@y")


def test_what_would_make_sigterm_a_cold_stop_is_not_inherited() -> None:
    env = commands.environment({"REMAP_SIGTERM": "SIGQUIT", "A": "1"}, "x@y", {"B": "2"})
    assert env == {"A": "1", "B": "2", commands.NODE: "x@y"}


def test_devices_are_what_the_node_is_pinned_to() -> None:
    node = NodeProcess(name="x", queue="q", state=ProcessState.RUNNING, since=0.0, began=0.0)
    assert node.devices == ()


def test_what_is_read_from_the_environment_is_noted() -> None:
    with safety.reads_noted() as read:
        os.environ.get("CUDA_VISIBLE_DEVICES")
        os.getenv("OTHER")
    os.environ.get("LATER")
    assert read == {"CUDA_VISIBLE_DEVICES", "OTHER"}
    pin = {"CUDA_VISIBLE_DEVICES": "GPU-1"}
    told = safety.against_this_fork(pin, 1, read)
    assert told == "the app reads CUDA_VISIBLE_DEVICES when it is imported"
    assert safety.against_this_fork(pin, 1, {"OTHER"}) is None


def test_a_device_count_that_torch_has_kept_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cuda:
        _cached_device_count: int | None = None

    monkeypatch.setitem(sys.modules, "torch.cuda", Cuda())
    assert safety.against_this_fork({}, 1, ()) is None
    Cuda._cached_device_count = 8
    assert safety.against_this_fork({}, 0, ()) is None
    told = safety.against_this_fork({}, 1, ())
    assert told is not None
    assert "torch" in told


DRIVER = """
static int ready;
int cuInit(unsigned flags) { ready = 1; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return ready ? 0 : 3; }
"""
ASKED = """
    import ctypes, sys
    from celery_concurrent.autoscaler.local.safety import against_any_fork
    assert against_any_fork([]) is None
    driver = ctypes.CDLL(sys.argv[1])
    assert against_any_fork([]) is None  # loaded, and not initialised
    driver.cuInit(0)
    print(against_any_fork([]))
"""


def test_a_driver_that_is_initialised_is_noticed_and_one_that_is_loaded_is_not(
    tmp_path: Path,
) -> None:
    (tmp_path / "driver.c").write_text(DRIVER)
    library = tmp_path / "libcuda.so.1"
    build = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(library), "driver.c"]
    try:
        subprocess.run(build, cwd=tmp_path, check=True)
    except FileNotFoundError:
        pytest.skip("no C compiler")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ASKED), library],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "initialises CUDA" in done.stdout, done.stderr
