"""Devices, and the masks that keep a pool inside some of them."""

from enum import StrEnum

import msgspec


class DeviceKind(StrEnum):
    """What a device is."""

    CPU = "cpu"
    CUDA = "cuda"
    FAKE = "fake"


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One accelerator, or the CPU, as discovered. Memory in bytes, temperature in °C.

    `id` is stable over restarts: the vendor's UUID, or "cpu".
    """

    id: str
    kind: DeviceKind
    index: int
    name: str
    memory_total_bytes: int
    memory_used_bytes: int
    memory_free_bytes: int
    temperature_c: float | None = None
    compute_capability: str | None = None
    pci_bus_id: str | None = None
    pids: tuple[int, ...] = ()


class DeviceMask(msgspec.Struct, frozen=True):
    """The devices that a pool may use, by stable id, in order. Nothing of the pool runs outside it."""

    ids: tuple[str, ...]

    @property
    def is_cpu(self) -> bool:
        """True when the mask is the CPU alone."""
        return self.ids == ("cpu",)
