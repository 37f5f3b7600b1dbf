import ctypes

import pytest

from skep.errors.runtime import DeviceMissing
from skep.runtime.llama.devices import LibraryDeviceKind, device_handles, list_devices


class FakeApi:
    """A library with two GPUs around a CPU, as its device functions show them."""

    devices = (("CUDA0", 1), ("CPU", 0), ("BLAS", 3), ("CUDA1", 1), ("NEW", 99))

    def ggml_backend_dev_count(self) -> int:
        return len(self.devices)

    def ggml_backend_dev_get(self, index: int) -> int:
        return 1000 + index

    def ggml_backend_dev_name(self, handle: int) -> bytes:
        return self.devices[handle - 1000][0].encode()

    def ggml_backend_dev_description(self, handle: int) -> bytes | None:
        return None

    def ggml_backend_dev_type(self, handle: int) -> int:
        return self.devices[handle - 1000][1]

    def ggml_backend_dev_memory(self, handle: int, free: object, total: object) -> None:
        ctypes.cast(free, ctypes.POINTER(ctypes.c_size_t))[0] = handle
        ctypes.cast(total, ctypes.POINTER(ctypes.c_size_t))[0] = 2 * handle


def test_indices_count_gpus_alone() -> None:
    found = list_devices(FakeApi())
    assert [(d.name, d.index) for d in found] == [
        ("CUDA0", 0),
        ("CPU", None),
        ("BLAS", None),
        ("CUDA1", 1),
        ("NEW", None),
    ]
    assert found[3].memory_free_bytes == 1003
    assert found[4].kind is LibraryDeviceKind.UNKNOWN


def test_handles_come_in_the_order_that_was_asked_for() -> None:
    assert device_handles(FakeApi(), (1, 0)) == [1003, 1000]
    assert device_handles(FakeApi(), ()) == []


@pytest.mark.parametrize("indices", [(2,), (-1,), (0, 7), (0, 0)])
def test_a_gpu_that_is_not_there_is_an_error(indices: tuple[int, ...]) -> None:
    with pytest.raises(DeviceMissing):
        device_handles(FakeApi(), indices)
