"""The seam: something that can say which devices are here now."""

from typing import Protocol

from skep.spec.device import Device


class DeviceSource(Protocol):
    """One way to find devices. Blocking: called in a thread, with a time limit around it."""

    name: str

    def discover(self) -> list[Device]:
        """Return the devices that are here now, none when there are none. Raises: DiscoveryFailed."""
        ...
