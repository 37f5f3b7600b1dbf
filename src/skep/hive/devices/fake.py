"""Accelerators that are not there: a device tree from the configuration, so that every rule can be tried anywhere."""

from collections.abc import Callable, Sequence
from pathlib import Path

from skep.spec.config import FakeDeviceConfig
from skep.spec.device import Device, DeviceKind


class FakeSource:
    """Answers with the configured devices; `used_bytes` says what our own replicas hold of one, by its id."""

    name = "fake"

    def __init__(
        self, devices: Sequence[FakeDeviceConfig], *, used_bytes: Callable[[str], int] = lambda _: 0
    ) -> None:
        self.devices = list(devices)
        self._used_bytes = used_bytes

    def discover(self) -> list[Device]:
        """Return the devices that are there at present."""
        return [
            self._device(one)
            for one in self.devices
            if not one.while_exists or Path(one.while_exists).exists()
        ]

    def _device(self, one: FakeDeviceConfig) -> Device:
        device_id = one.id or f"FAKE-{one.index}"
        used = min(self._used_bytes(device_id), one.memory_total_bytes)
        return Device(
            id=device_id,
            kind=DeviceKind.FAKE,
            index=one.index,
            name=one.name,
            memory_total_bytes=one.memory_total_bytes,
            memory_used_bytes=used,
            memory_free_bytes=one.memory_total_bytes - used,
            temperature_c=one.temperature_c,
            compute_capability=one.compute_capability,
        )
