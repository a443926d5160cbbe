"""The real bindings against a driver that a test sets, and against a real one where it is.

Each test of an error is named by NVML's code for it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from celery_concurrent.gpu.device import Device, Memory, Process
from tests.services.nvml import LIBRARY, FakeHost, Read, Reader, compile_library
from tests.services.process import program

GIB = 1024**3
DRIVER = "550.54.15"
A = f"gpu 0 GPU-aaaa {80 * GIB} {60 * GIB} 37 NVIDIA A100-SXM4-80GB"
B = f"gpu 1 GPU-bbbb {80 * GIB} {80 * GIB} 0 NVIDIA A100-SXM4-80GB"
A_SLICES = (
    f"mig 0 1 MIG-a1 {10 * GIB} {9 * GIB} NVIDIA A100-SXM4-80GB MIG 1g.10gb",
    f"mig 0 4 MIG-a4 {20 * GIB} {20 * GIB} NVIDIA A100-SXM4-80GB MIG 2g.20gb",
)
A_DEVICE = Device(
    index=0,
    uuid="GPU-aaaa",
    name="NVIDIA A100-SXM4-80GB",
    driver=DRIVER,
    memory=Memory(total=80 * GIB, free=60 * GIB),
    utilisation=37,
    processes=(),
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="module")
def old_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_library(tmp_path_factory.mktemp("old_nvml"), "OLD_DRIVER")


@pytest.fixture
def host(library: Path, tmp_path: Path) -> FakeHost:
    return FakeHost(library, tmp_path / "host.txt")


@pytest.fixture
def reader(host: FakeHost) -> Iterator[Reader]:
    with host.reader() as started:
        yield started


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.gpu)])
def any_reader(request: pytest.FixtureRequest) -> Iterator[Reader]:
    """A host with devices: the fake one with slices and a process, and the machine's own."""
    if request.param == "fake":
        host: FakeHost = request.getfixturevalue("host")
        host.has(A, *A_SLICES, B, f"process 1 - 4321 {GIB}")
        with host.reader() as started:
            yield started
        return
    with Reader() as started:
        if not started.read().devices:
            pytest.skip("no GPU with its driver here")
        yield started


def test_the_memory_of_single_devices_is_read_by_their_uuids(host: FakeHost) -> None:
    host.has(A, *A_SLICES, B)
    code = "from celery_concurrent.gpu.nvml import NvmlReadings; import sys; "
    code += "print({u: r.memory.free for u, r in NvmlReadings(sys.argv[1:]).read().items()})"
    argv = [sys.executable, "-c", code, "MIG-a4", "GPU-bbbb"]
    done = subprocess.run(
        argv, env={**os.environ, **host.environ}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str({"MIG-a4": 20 * GIB, "GPU-bbbb": 80 * GIB})


# What holds for any driver, a real one included.


def test_every_device_tells_what_it_is(any_reader: Reader) -> None:
    found = any_reader.read()
    assert found.inventory.absence is None
    for device in found.devices:
        assert device.uuid.startswith(("GPU-", "MIG-"))
        assert device.name
        assert device.driver.replace(".", "").isdigit()
        assert device.fault is None
        assert device.utilisation is None or 0 <= device.utilisation <= 100
    assert len({device.uuid for device in found.devices}) == len(found.devices)
    whole = [device.index for device in found.devices if device.parent is None]
    assert whole == list(range(len(whole)))


def test_a_slice_follows_its_gpu_which_cannot_be_used_itself(any_reader: Reader) -> None:
    gpus: dict[str, Device] = {}
    for device in any_reader.read().devices:
        if device.parent is None:
            gpus[device.uuid] = device
            assert device.uuid.startswith("GPU-")
        else:
            assert device.uuid.startswith("MIG-")
            assert gpus[device.parent].sliced
            assert not gpus[device.parent].usable
            assert device.usable


def test_an_inventory_can_be_read_over_and_over(any_reader: Reader) -> None:
    def identities(read: Read) -> list[tuple[int, str]]:
        return [(device.index, device.uuid) for device in read.devices]

    first, *later = [any_reader.read() for _ in range(5)]
    assert all(identities(read) == identities(first) for read in later)
    assert [read.said for read in later] == [[]] * 4


# What a driver says of its devices.


def test_devices_are_read_with_memory_utilisation_processes_and_driver(
    host: FakeHost, reader: Reader
) -> None:
    host.has(A, B, f"process 1 - 4321 {GIB}", "process 1 - 99 0")
    first, second = reader.read().devices
    assert first == A_DEVICE
    assert second.processes == (Process(pid=4321, memory=GIB), Process(pid=99, memory=0))


def test_memory_that_the_driver_does_not_tell_of_a_process_is_unknown(
    host: FakeHost, reader: Reader
) -> None:
    host.has(A, f"process 0 - 7 {2**64 - 1}")
    assert reader.read().devices[0].processes == (Process(pid=7, memory=None),)


def test_a_later_reading_has_the_new_values(host: FakeHost, reader: Reader) -> None:
    host.has(A)
    assert reader.read().devices == (A_DEVICE,)
    host.has(A.replace(str(60 * GIB), str(3 * GIB)))
    memory = reader.read().devices[0].memory
    assert memory == Memory(total=80 * GIB, free=3 * GIB)


def test_slices_have_their_own_memory_and_name_their_gpu(host: FakeHost, reader: Reader) -> None:
    host.has(A, *A_SLICES, B, f"process 0 4 55 {GIB}")
    whole, first, second, other = reader.read().devices
    assert (whole.uuid, whole.sliced, whole.usable) == ("GPU-aaaa", True, False)
    assert first == Device(
        index=1,
        uuid="MIG-a1",
        name="NVIDIA A100-SXM4-80GB MIG 1g.10gb",
        driver=DRIVER,
        memory=Memory(total=10 * GIB, free=9 * GIB),
        processes=(),
        parent="GPU-aaaa",
    )
    assert second.processes == (Process(pid=55, memory=GIB),)
    assert (other.uuid, other.usable) == ("GPU-bbbb", True)


def test_a_driver_without_devices_is_no_absence_of_a_driver(host: FakeHost, reader: Reader) -> None:
    host.has()
    found = reader.read()
    assert (found.devices, found.inventory.absence, found.said) == ((), None, [])


# Errors, by NVML's code.


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (12, "libnvidia-ml.so.1 is not here. Install NVIDIA's driver"),
        (9, "the driver is not loaded. Load it"),
        (4, "this user may not open the devices. Look at the rights of /dev/nvidia*"),
        (18, "the driver's library and its kernel module have different versions"),
        (999, "the driver does not say why"),
        (20, "Insufficient Memory (NVML error 20)"),
    ],
)
def test_an_error_at_init_means_no_gpu_support_which_is_said_once(
    host: FakeHost, reader: Reader, code: int, reason: str
) -> None:
    host.has(A, f"fault nvmlInitWithFlags {code}")
    found = [reader.read() for _ in range(3)]
    assert [read.devices for read in found] == [()] * 3
    absence = found[0].inventory.absence
    assert absence is not None
    assert absence.startswith(reason)
    assert [read.said for read in found] == [[f"no GPU support here: {absence}"], [], []]
    # The driver may come later, and go again.
    host.has(A)
    assert reader.read().devices == (A_DEVICE,)


def test_a_library_that_cannot_be_loaded_is_error_12(tmp_path: Path) -> None:
    (tmp_path / LIBRARY).write_bytes(b"")
    with Reader(tmp_path) as reader:
        absence = reader.read().inventory.absence
    assert absence is not None
    assert absence.startswith("libnvidia-ml.so.1 is not here")


def test_error_3_leaves_out_the_reading_that_is_not_supported(
    host: FakeHost, reader: Reader
) -> None:
    host.has(
        A,
        B,
        "fault nvmlDeviceGetUtilizationRates 3 0",
        "fault nvmlDeviceGetComputeRunningProcesses_v3 3 0",
        "fault nvmlDeviceGetComputeRunningProcesses_v2 3 0",
        "fault nvmlDeviceGetMigMode 3",
        "fault nvmlDeviceGetMemoryInfo_v2 3 1",
        "fault nvmlDeviceGetMemoryInfo 3 1",
    )
    first, second = reader.read().devices
    assert (first.utilisation, first.processes, first.usable) == (None, None, True)
    assert (second.memory, second.utilisation, second.usable) == (None, 0, True)


def test_error_13_of_an_old_driver_falls_back_to_its_functions(
    old_library: Path, tmp_path: Path
) -> None:
    host = FakeHost(old_library, tmp_path / "host.txt")
    host.has(A, f"process 0 - 7 {GIB}")
    with host.reader() as reader:
        (device,) = reader.read().devices
    assert device.memory == A_DEVICE.memory
    assert device.processes == (Process(pid=7, memory=GIB),)


def test_error_25_falls_back_to_the_first_version_of_memory(host: FakeHost, reader: Reader) -> None:
    host.has(A, "fault nvmlDeviceGetMemoryInfo_v2 25")
    assert reader.read().devices == (A_DEVICE,)


def test_error_6_is_an_empty_slot(host: FakeHost, reader: Reader) -> None:
    host.has(A, *A_SLICES, "fault nvmlDeviceGetMigDeviceHandleByIndex 6 0 1")
    assert [device.uuid for device in reader.read().devices] == ["GPU-aaaa", "MIG-a4"]


@pytest.mark.parametrize("code", [15, 16])
@pytest.mark.parametrize(
    "function",
    ["nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetUUID", "nvmlDeviceGetMemoryInfo_v2"],
)
def test_errors_15_and_16_mark_that_device_lost_and_the_others_go_on(
    host: FakeHost, reader: Reader, code: int, function: str
) -> None:
    host.has(A, B)
    reader.read()
    host.has(A, B, f"fault {function} {code} 0")
    found = reader.read()
    lost, other = found.devices
    assert (lost.uuid, lost.name, lost.usable) == ("GPU-aaaa", A_DEVICE.name, False)
    assert lost.lost
    assert lost.fault is not None
    assert lost.fault.endswith(f"(NVML error {code})")
    assert (lost.memory, lost.utilisation, lost.processes) == (None, None, None)
    assert (other.uuid, other.usable) == ("GPU-bbbb", True)
    assert found.said == [f"device GPU-aaaa is lost: {lost.fault}"]
    assert reader.read().said == []
    host.has(A, B)
    back = reader.read()
    assert back.devices[0] == A_DEVICE
    assert back.said == ["device GPU-aaaa is back"]


@pytest.mark.parametrize("code", [15, 16])
def test_a_device_that_was_lost_from_the_start_is_listed_all_the_same(
    host: FakeHost, reader: Reader, code: int
) -> None:
    host.has(A, B, f"fault nvmlDeviceGetHandleByIndex_v2 {code} 0")
    lost, other = reader.read().devices
    assert (lost.index, lost.uuid, lost.usable) == (0, "unknown-0", False)
    assert other.usable


def test_a_lost_gpus_slices_are_lost_with_it(host: FakeHost, reader: Reader) -> None:
    host.has(A, *A_SLICES, B)
    reader.read()
    host.has(A, *A_SLICES, B, "fault nvmlDeviceGetHandleByIndex_v2 15 0")
    devices = {device.uuid: device for device in reader.read().devices}
    assert [uuid for uuid, device in devices.items() if device.lost] == [
        "GPU-aaaa",
        "MIG-a1",
        "MIG-a4",
    ]
    assert devices["MIG-a1"].parent == "GPU-aaaa"


@pytest.mark.parametrize("function", ["nvmlDeviceGetCount_v2", "nvmlDeviceGetUUID"])
def test_any_other_error_is_a_fault_that_may_pass(
    host: FakeHost, reader: Reader, function: str
) -> None:
    host.has(A)
    reader.read()
    host.has(A, f"fault {function} 999")
    found = reader.read()
    (device,) = found.devices
    assert (device.uuid, device.usable, device.lost) == ("GPU-aaaa", False, False)
    assert found.said == [f"device GPU-aaaa does not answer: {device.fault}"]
    host.has(A)
    assert reader.read().devices == (A_DEVICE,)


def test_devices_whose_driver_goes_away_are_not_forgotten(host: FakeHost, reader: Reader) -> None:
    host.has(A)
    reader.read()
    host.has("fault nvmlDeviceGetCount_v2 18", "fault nvmlInitWithFlags 18")
    for _ in range(2):
        (hidden,) = reader.read().devices
        assert (hidden.uuid, hidden.usable, hidden.lost) == ("GPU-aaaa", False, False)
    host.has(A)
    assert reader.read().devices == (A_DEVICE,)


# The command, with Celery's own command line.


def gpus(host: FakeHost, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("celery"), "gpus", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **host.environ},
    )


def test_the_command_prints_what_the_driver_tells(host: FakeHost) -> None:
    host.has(A, *A_SLICES)
    rows = json.loads(gpus(host, "--json").stdout)
    assert [row["uuid"] for row in rows] == ["GPU-aaaa", "MIG-a1", "MIG-a4"]
    table = gpus(host).stdout
    assert "NVIDIA A100-SXM4-80GB MIG 1g.10gb" in table
    assert f"driver {DRIVER}" in table


def test_the_command_says_what_is_missing_and_is_no_failure(host: FakeHost) -> None:
    host.has("fault nvmlInitWithFlags 9")
    done = gpus(host)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("no GPU here: the driver is not loaded")


@pytest.mark.parametrize(
    ("strict", "outcome"), [("", "Skipped"), ("1", "Failed")], ids=["asked", "demanded"]
)
def test_a_missing_compiler_skips_unless_services_are_demanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strict: str, outcome: str
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setenv("CELERY_CONCURRENT_REQUIRE_SERVICES", strict)
    with pytest.raises(BaseException, match="a C compiler is missing: apt-get install") as caught:
        compile_library(tmp_path)
    assert type(caught.value).__name__ == outcome
