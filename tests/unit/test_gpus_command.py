"""``celery gpus`` as Celery's own command line runs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from celery.bin.celery import celery
from click.testing import CliRunner, Result

from celery_concurrent.gpu import nvml
from celery_concurrent.gpu.device import Device, Inventory, Memory, Process
from celery_concurrent.gpu.simulated import STATE, change

GIB = 1024**3
GPU = Device(
    index=0,
    uuid="GPU-0b1c2d3e-aaaa-bbbb-cccc-0123456789ab",
    name="NVIDIA A100-SXM4-80GB",
    driver="550.54",
    memory=Memory(total=80 * GIB, free=60 * GIB),
    sliced=True,
)
SLICE = Device(
    index=2,
    uuid="MIG-0b1c2d3e-aaaa-bbbb-cccc-0123456789ab",
    name="NVIDIA A100-SXM4-80GB MIG 1g.10gb",
    driver="550.54",
    memory=Memory(total=10 * GIB, free=3 * GIB),
    processes=(Process(pid=7, memory=5),),
    parent=GPU.uuid,
)
LOST = Device(
    index=1, uuid="GPU-1", name="NVIDIA A100", driver="550.54", fault="GPU is lost", lost=True
)


def run(*words: str) -> Result:
    return CliRunner().invoke(celery, ["gpus", *words])


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Inventory(devices=(GPU, SLICE, LOST))
    monkeypatch.setattr(nvml, "inventory", lambda: found)


@pytest.fixture
def bare_host(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Inventory(absence="the driver is not loaded")
    monkeypatch.setattr(nvml, "inventory", lambda: found)


def test_the_table_shows_each_device_in_full(host: None) -> None:
    pytest.importorskip("rich")
    done = run()
    assert done.exit_code == 0
    lines = [
        [cell for cell in line.split("  ") if cell.strip()] for line in done.stdout.splitlines()
    ]
    cells = [[cell.strip() for cell in line] for line in lines]
    assert cells == [
        ["index", "name", "uuid", "free", "memory", "busy", "processes", "state"],
        ["0", GPU.name, GPU.uuid, "60.0 GiB", "80.0 GiB", "-", "-", "in slices"],
        ["slice 2", SLICE.name, SLICE.uuid, "3.0 GiB", "10.0 GiB", "-", "1", "ok"],
        ["1", "NVIDIA A100", "GPU-1", "-", "-", "-", "-", "lost: GPU is lost"],
        ["driver 550.54"],
    ]


def test_json_has_one_object_per_device(host: None) -> None:
    rows = json.loads(run("--json").stdout)
    assert [row["uuid"] for row in rows] == [GPU.uuid, SLICE.uuid, LOST.uuid]
    assert rows[1] == {
        "index": 2,
        "uuid": SLICE.uuid,
        "name": SLICE.name,
        "driver": "550.54",
        "memory": {"total": 10 * GIB, "free": 3 * GIB},
        "utilisation": None,
        "processes": [{"pid": 7, "memory": 5}],
        "parent": GPU.uuid,
        "sliced": False,
        "fault": None,
        "lost": False,
        "usable": True,
    }


def test_a_host_without_gpus_says_why_and_is_no_error(bare_host: None) -> None:
    done = run()
    assert (done.exit_code, done.stdout) == (0, "no GPU here: the driver is not loaded\n")


def test_json_of_a_host_without_gpus_is_an_empty_list(bare_host: None) -> None:
    done = run("--json")
    assert (done.exit_code, done.stdout) == (0, "[]\n")
    assert done.stderr == "no GPU here: the driver is not loaded\n"


def test_simulated_devices_are_shown_as_their_file_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "gpus.json"
    change(state, 1, fault="GPU is lost")
    monkeypatch.setenv(STATE, str(state))
    rows = json.loads(run("--simulate-gpus", "2", "--json").stdout)
    assert [row["fault"] for row in rows] == [None, "GPU is lost"]


def test_a_mistake_in_that_file_is_told_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gpus.json").write_text("{")
    monkeypatch.setenv(STATE, str(tmp_path / "gpus.json"))
    done = run("--simulate-gpus", "2")
    assert done.exit_code == 1
    assert "Error: " in done.stderr
    assert "gpus.json is no JSON" in done.stderr


def test_a_table_without_rich_names_the_line_that_installs_it(
    host: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rich", "rich.console"):
        monkeypatch.setitem(sys.modules, name, None)
    done = run()
    assert done.exit_code == 1
    assert 'pip install "celery-concurrent[gpu]"' in done.stderr
    assert run("--json").exit_code == 0


def test_without_the_bindings_there_is_no_gpu_and_the_line_that_installs_them(
    monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(nvml, "pynvml", None)
    reader = nvml.Nvml()
    with caplog.at_level("INFO"):
        found = [reader.inventory() for _ in range(3)]
    assert {one.devices for one in found} == {()}
    assert found[0].absence == (
        'nvidia-ml-py is not installed: pip install "celery-concurrent[gpu]"'
    )
    assert [record.getMessage() for record in caplog.records] == [
        f"no GPU support here: {found[0].absence}"
    ]
