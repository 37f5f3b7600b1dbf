"""Device memory in the ledger, told by a driver's library of our own: real devices are asked where there are some."""

import os
from types import SimpleNamespace

import pytest

from skep.testkit.ledger import device
from skep.testkit.ledger.leaks import describe
from skep.testkit.ledger.snapshot import NOTHING, take
from skep.testkit.levels import missing

MIB = 1 << 20


def driver(*devices: dict[int, int]) -> SimpleNamespace:
    """A driver with these devices, each told by what each process holds of it."""
    return SimpleNamespace(
        nvmlDeviceGetCount=lambda: len(devices),
        nvmlDeviceGetHandleByIndex=lambda index: devices[index],
        nvmlDeviceGetComputeRunningProcesses=lambda held: [
            SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in held.items()
        ],
        nvmlDeviceGetMemoryInfo=lambda held: SimpleNamespace(used=sum(held.values())),
    )


def test_what_this_process_holds_is_told_apart_from_the_others() -> None:
    found = driver({os.getpid(): 5 * MIB, 1: 70 * MIB}, {os.getpid(): 7 * MIB})
    assert device.own_bytes(found) == 12 * MIB
    assert device.used_bytes(found) == 82 * MIB


def test_a_process_that_the_driver_does_not_know_is_not_blamed() -> None:
    assert device.own_bytes(driver({1: 70 * MIB})) is None


@pytest.mark.parametrize(
    ("grown", "is_first", "leaked"),
    [
        (0, False, 0),
        (16 * MIB, False, 0),
        (17 * MIB, False, 17 * MIB),
        (600 * MIB, True, 0),
        (1100 * MIB, True, 76 * MIB),
    ],
)
def test_a_first_context_is_no_leak_and_growth_is(grown: int, is_first: bool, leaked: int) -> None:
    assert device.leaked_bytes(grown, is_first_use=is_first) == leaked


def test_a_leak_of_device_memory_is_called_by_its_size() -> None:
    grown = NOTHING.with_also(NOTHING)
    object.__setattr__(grown, "device_bytes", 40 * MIB)
    assert not grown.is_empty
    assert describe(grown) == ["device memory 40 MiB"]
    assert grown.leaked_since(grown).is_empty


def test_a_machine_without_a_driver_has_nothing_to_tell() -> None:
    if device._nvml() is None:
        assert device.own_bytes() is None
        assert device.used_bytes() is None
    assert take().device_bytes >= 0


@pytest.mark.cuda
@pytest.mark.skipif(bool(missing("cuda")), reason=missing("cuda"))
def test_memory_that_is_taken_on_a_real_device_is_seen_and_comes_back() -> None:
    import ctypes

    cuda = ctypes.CDLL("libcuda.so.1")
    context, memory = ctypes.c_void_p(), ctypes.c_uint64()
    assert cuda.cuInit(0) == 0
    assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
    assert cuda.cuCtxSetCurrent(context) == 0
    before = device.used_bytes()
    assert cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(256 * MIB)) == 0
    during = device.used_bytes()
    assert cuda.cuMemFree_v2(memory) == 0
    assert before is not None
    assert during is not None
    assert during - before >= 256 * MIB
    assert cuda.cuDevicePrimaryCtxRelease_v2(0) == 0
