import asyncio
import stat
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from skep.errors.hive import DiscoveryFailed
from skep.hive.devices.cpu import CpuSource
from skep.hive.devices.fake import FakeSource
from skep.hive.devices.inventory import DeviceEvent, Inventory
from skep.hive.devices.nvml import NvmlSource
from skep.hive.devices.smi import SmiSource
from skep.hive.memory import wait_memory_back
from skep.policy.fit import DeviceNeed, FitVerdict
from skep.spec.config import FakeDeviceConfig
from skep.spec.device import Device, DeviceKind, DeviceMask

MIB = 1024**2


class Nvml:
    """The shape of pynvml, with one device."""

    class NVMLError(Exception): ...

    class NVMLError_LibraryNotFound(NVMLError): ...  # noqa: N801 - the library\'s name

    class NVMLError_DriverNotLoaded(NVMLError): ...  # noqa: N801 - the library\'s name

    class NVMLError_NotSupported(NVMLError): ...  # noqa: N801 - the library\'s name

    class NVMLError_NoPermission(NVMLError): ...  # noqa: N801 - the library\'s name

    NVML_TEMPERATURE_GPU = 0

    def __init__(self, fail: type[Exception] | None = None, *, on: str = "nvmlInit") -> None:
        self._fail, self._on, self.open = fail, on, 0

    def __getattr__(self, name: str):
        answers = {
            "nvmlInit": lambda: setattr(self, "open", self.open + 1),
            "nvmlShutdown": lambda: setattr(self, "open", self.open - 1),
            "nvmlDeviceGetCount": lambda: 1,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(total=100, used=40, free=60),
            "nvmlDeviceGetCudaComputeCapability": lambda _: (9, 0),
            "nvmlDeviceGetTemperature": lambda *_: 41,
            "nvmlDeviceGetUUID": lambda _: b"GPU-1",
            "nvmlDeviceGetName": lambda _: "NVIDIA X",
            "nvmlDeviceGetPciInfo": lambda _: SimpleNamespace(busId="00:1"),
            "nvmlDeviceGetComputeRunningProcesses": lambda _: [
                SimpleNamespace(pid=7),
                SimpleNamespace(pid=7),
            ],
        }
        if name == self._on and self._fail is not None:

            def fail(*_):
                raise self._fail("no")

            return fail
        return answers[name]


def test_nvml_tells_a_device_whole_and_is_closed_again() -> None:
    nvml = Nvml()
    assert NvmlSource(nvml).discover() == [
        Device(
            id="GPU-1", kind=DeviceKind.CUDA, index=0, name="NVIDIA X", memory_total_bytes=100, memory_used_bytes=40,
            memory_free_bytes=60, temperature_c=41.0, compute_capability="9.0", pci_bus_id="00:1", pids=(7,),
        )
    ]  # fmt: skip
    assert nvml.open == 0


def test_without_a_driver_there_is_no_device() -> None:
    assert NvmlSource(Nvml(Nvml.NVMLError_LibraryNotFound)).discover() == []
    assert NvmlSource(Nvml(Nvml.NVMLError_DriverNotLoaded)).discover() == []


def test_what_a_device_does_not_offer_is_left_out() -> None:
    found = NvmlSource(Nvml(Nvml.NVMLError_NotSupported, on="nvmlDeviceGetTemperature")).discover()
    assert found[0].temperature_c is None


@pytest.mark.parametrize("on", ["nvmlInit", "nvmlDeviceGetMemoryInfo"])
def test_an_nvml_error_is_typed(on: str) -> None:
    nvml = Nvml(Nvml.NVMLError, on=on)
    with pytest.raises(DiscoveryFailed) as caught:
        NvmlSource(nvml).discover()
    assert caught.value.source == "nvml"
    assert nvml.open == 0


def program(folder: Path, text: str) -> str:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_nvidia_smi_is_read(tmp_path: Path) -> None:
    smi = program(
        tmp_path,
        'case "$1" in *query-gpu*) echo "GPU-1, 0, NVIDIA X, 1000, 400, 600, 41, 9.0, 00000000:01:00.0";\n'
        'echo "GPU-2, 1, NVIDIA Y, [N/A], [N/A], [N/A], [N/A], [N/A], 00000000:02:00.0";;\n'
        '*) echo "GPU-1, 7"; echo "GPU-1, 9";; esac\n',
    )
    first, second = SmiSource(smi).discover()
    assert (first.memory_total_bytes, first.pids, first.compute_capability) == (1000 * MIB, (7, 9), "9.0")
    assert (second.memory_total_bytes, second.temperature_c, second.compute_capability) == (0, None, None)


def test_nvidia_smi_that_is_not_there_or_finds_nothing_is_no_device(tmp_path: Path) -> None:
    assert SmiSource(str(tmp_path / "missing")).discover() == []
    assert SmiSource(program(tmp_path, 'echo "No devices were found"; exit 6')).discover() == []


@pytest.mark.parametrize("text", ["echo broken driver >&2; exit 9", 'echo "a, b, c"'])
def test_nvidia_smi_that_fails_is_a_typed_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(DiscoveryFailed):
        SmiSource(program(tmp_path, text)).discover()


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("0::/a/b\n", ("memory.max", "memory.current")),
        ("4:memory:/a/b\n", ("memory.limit_in_bytes", "memory.usage_in_bytes")),
    ],
)
def test_the_cpu_has_what_its_control_groups_leave_it(
    line: str, names: tuple[str, str], tmp_path: Path
) -> None:
    groups = tmp_path / "cgroup"
    groups.write_text(line)
    root = tmp_path / "fs"
    base = root if line.startswith("0") else root / "memory"
    (base / "a" / "b").mkdir(parents=True)
    (base / "a" / names[0]).write_text(f"{300 * MIB}\n")
    (base / "a" / names[1]).write_text(f"{200 * MIB}\n")
    (base / "a" / "memory.stat").write_text(f"anon 1\ninactive_file {50 * MIB}\n")
    (base / "a" / "b" / names[0]).write_text("max\n")
    (cpu,) = CpuSource(root=root, groups=groups).discover()
    assert (cpu.memory_total_bytes, cpu.memory_free_bytes) == (300 * MIB, 150 * MIB)
    (plain,) = CpuSource(root=tmp_path / "none", groups=tmp_path / "none").discover()
    assert plain.memory_total_bytes > 300 * MIB


class Scripted:
    name = "scripted"

    def __init__(self, *answers) -> None:
        self.answers = list(answers)

    def discover(self) -> list[Device]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def gpu(device_id: str = "GPU-1", *, temperature_c: float = 40.0, free: int = 60) -> Device:
    return Device(
        id=device_id, kind=DeviceKind.CUDA, index=0, name="X", memory_total_bytes=100, memory_used_bytes=100 - free,
        memory_free_bytes=free, temperature_c=temperature_c,
    )  # fmt: skip


async def changes(*answers) -> list[tuple[DeviceEvent, str]]:
    seen: list = []
    inventory = Inventory([[Scripted(*answers)]], on_change=seen.append)
    for _ in answers:
        await inventory.refresh()
    return [(one.event, one.device.id) for one in seen]


async def test_a_device_that_vanishes_or_returns_is_an_event() -> None:
    e = DeviceEvent
    assert await changes([gpu()], [], [gpu()]) == [(e.VANISHED, "GPU-1")], (
        "the first look and an empty one tell nothing new"
    )
    assert await changes([gpu()], [gpu(), gpu("GPU-2")]) == [(e.APPEARED, "GPU-2")]


@pytest.mark.parametrize(
    ("holders", "is_back"),
    [([(7, 9), (9,), ()], True), ([(), ()], True), ([(1, 2)], True), ([(9,)] * 1000, False)],
)
async def test_memory_is_back_when_no_process_of_the_group_is_on_the_device_or_the_wait_ends(
    holders: list[tuple[int, ...]], is_back: bool
) -> None:
    looks = [[msgspec.structs.replace(gpu(), pids=pids)] for pids in holders]
    inventory = Inventory([[Scripted(looks[0], *looks)]])
    await inventory.refresh()
    within_s = 5.0 if is_back else 0.3
    mask = DeviceMask(("GPU-1",))
    assert await wait_memory_back(inventory, mask, frozenset({7, 9}), within_s=within_s) is is_back


async def test_heat_is_told_once_each_time_that_it_crosses_a_line() -> None:
    e = DeviceEvent
    heat = [[gpu(temperature_c=one)] for one in (60, 85, 86, 90, 96, 99, 80)]
    assert [event for event, _ in await changes(*heat)] == [e.HOT, e.CRITICAL, e.COOLED]


async def test_a_source_that_fails_is_followed_by_its_fall_back_and_unknown_is_not_vanished() -> None:
    seen: list = []
    first, second = (
        Scripted([gpu()], DiscoveryFailed("x"), DiscoveryFailed("x")),
        Scripted([gpu("GPU-2")], DiscoveryFailed("y")),
    )
    inventory = Inventory([[first, second]], on_change=seen.append)
    assert [one.id for one in await inventory.refresh()] == ["GPU-1"]
    assert [one.id for one in await inventory.refresh()] == ["GPU-2"]
    assert [one.id for one in await inventory.refresh()] == ["GPU-2"], "both fail now"


async def test_the_ledger_counts_a_replica_once() -> None:
    config = FakeDeviceConfig(index=0, memory_total_bytes=1000)
    inventory = Inventory.of_this_machine([config])
    await inventory.refresh()
    mask = DeviceMask(("FAKE-0",))
    need = DeviceNeed(
        device_id="FAKE-0",
        share=1,
        weights_bytes=300,
        kv_cache_bytes=0,
        compute_bytes=0,
        headroom_bytes=50,
        available_bytes=1000,
    )
    inventory.hold("pool-r0", FitVerdict(fits=True, devices=(need,), because=""))
    (room,) = inventory.rooms(mask)
    assert (room.free_bytes, room.promised_bytes, room.available_bytes) == (1000, 300, 700)
    inventory.settle("pool-r0")
    await inventory.refresh()
    (room,) = inventory.rooms(mask)
    assert (room.free_bytes, room.promised_bytes, room.available_bytes) == (700, 0, 700)
    inventory.release("pool-r0")
    await inventory.refresh()
    assert inventory.rooms(mask)[0].available_bytes == 1000


async def test_a_source_that_hangs_does_not_hang_the_hive(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from skep.hive.devices import inventory as module

    monkeypatch.setattr(module, "DISCOVERY_S_MAX", 0.05)
    release = threading.Event()

    class Hanging:
        name = "hanging"

        def discover(self) -> list[Device]:
            release.wait(30)
            return []

    inventory = Inventory([[Hanging(), FakeSource([FakeDeviceConfig(index=0, memory_total_bytes=1)])]])
    try:
        async with asyncio.timeout(10):
            assert [one.id for one in await inventory.refresh()] == ["FAKE-0"]
    finally:
        release.set()
