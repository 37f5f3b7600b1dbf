"""The devices that a llama.cpp library sees, and the ones that a load may use.

Indices count GPUs alone, in the library's order (which follows CUDA_VISIBLE_DEVICES): 0 is its first GPU. The CPU is
always there and has no index; a load with no indices gets an empty device list, so that nothing runs on a GPU.
"""

import ctypes
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import msgspec

from skep.errors.runtime import DeviceMissing


class LibraryDeviceKind(IntEnum):
    """ggml-backend.h, enum ggml_backend_dev_type."""

    CPU = 0
    GPU = 1
    INTEGRATED_GPU = 2
    ACCELERATOR = 3
    META = 4
    UNKNOWN = -1

    @classmethod
    def _missing_(cls, _value: object) -> "LibraryDeviceKind":
        return cls.UNKNOWN


class LibraryDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One device as the library describes it; memory in bytes. `index` is None for what is not a GPU."""

    index: int | None
    kind: LibraryDeviceKind
    name: str
    description: str
    memory_free_bytes: int
    memory_total_bytes: int


GPU_KINDS = frozenset({LibraryDeviceKind.GPU, LibraryDeviceKind.INTEGRATED_GPU})


def list_devices(api: Any) -> list[LibraryDevice]:
    """Return every device of the library, GPUs and the CPU."""
    found: list[LibraryDevice] = []
    gpus = 0
    for position in range(api.ggml_backend_dev_count()):
        device = _describe(api, api.ggml_backend_dev_get(position), index=gpus)
        gpus += device.index is not None
        found.append(device)
    return found


def device_handles(api: Any, indices: Sequence[int]) -> list[int]:
    """Return the C handles of the GPUs with these indices, in that order. Raises: DeviceMissing."""
    gpus = [
        handle
        for handle in map(api.ggml_backend_dev_get, range(api.ggml_backend_dev_count()))
        if LibraryDeviceKind(api.ggml_backend_dev_type(handle)) in GPU_KINDS
    ]
    for index in indices:
        if not 0 <= index < len(gpus):
            raise DeviceMissing(
                f"device {index} is not one of the {len(gpus)} GPUs of this llama.cpp library; "
                "use a library built for it, or the mask `cpu`",
                index=index,
                gpus=len(gpus),
            )
    if len(set(indices)) != len(indices):
        raise DeviceMissing(
            f"a device stands twice in {tuple(indices)}; name each once", indices=tuple(indices)
        )
    return [gpus[index] for index in indices]


def _describe(api: Any, handle: int, *, index: int) -> LibraryDevice:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    api.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
    kind = LibraryDeviceKind(api.ggml_backend_dev_type(handle))
    return LibraryDevice(
        index=index if kind in GPU_KINDS else None,
        kind=kind,
        name=_text(api.ggml_backend_dev_name(handle)),
        description=_text(api.ggml_backend_dev_description(handle)),
        memory_free_bytes=free.value,
        memory_total_bytes=total.value,
    )


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace").strip()
