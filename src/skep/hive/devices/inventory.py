"""What devices are here, asked again and again, and who of ours was promised which part of their memory."""

import asyncio
from collections.abc import Callable, Sequence
from enum import StrEnum, auto

import msgspec
import structlog

from skep.errors.hive import DiscoveryFailed
from skep.hive.devices.cpu import CpuSource
from skep.hive.devices.fake import FakeSource
from skep.hive.devices.nvml import NvmlSource
from skep.hive.devices.smi import SmiSource
from skep.hive.devices.source import DeviceSource
from skep.policy.fit import FitVerdict, Room, promised
from skep.spec.config import FakeDeviceConfig
from skep.spec.device import Device, DeviceKind, DeviceMask

log = structlog.get_logger(__name__)

DISCOVERY_S_MAX = 15.0
TEMPERATURE_WARN_C = 85.0
TEMPERATURE_CRITICAL_C = 95.0


class DeviceEvent(StrEnum):
    """What changed about a device since it was last looked at."""

    APPEARED = auto()
    VANISHED = auto()
    HOT = auto()
    CRITICAL = auto()
    COOLED = auto()


class DeviceChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change."""

    event: DeviceEvent
    device: Device


class Holding(msgspec.Struct, kw_only=True):
    """What one replica needs on each device. `resident`: it has taken it, so the vendor counts it as used."""

    needs: dict[str, int]
    resident: bool = False


class Inventory:
    """The devices, and the ledger of what replicas hold of them."""

    def __init__(
        self,
        sources: Sequence[Sequence[DeviceSource]],
        *,
        on_change: Callable[[DeviceChange], None] = lambda _: None,
    ) -> None:
        """Each inner sequence is a source and its fall-backs: the first that finds a device is believed."""
        self._sources = sources
        self.on_change = on_change
        self._heat: dict[str, DeviceEvent] = {}
        self._holdings: dict[str, Holding] = {}
        self.devices: tuple[Device, ...] = ()

    @classmethod
    def of_this_machine(
        cls, fakes: Sequence[FakeDeviceConfig], *, on_change: Callable[[DeviceChange], None] = lambda _: None
    ) -> "Inventory":
        """Return the inventory of the machine; with fake devices, of those and the CPU."""
        if not fakes:
            return cls([[CpuSource()], [NvmlSource(), SmiSource()]], on_change=on_change)
        inventory = cls([], on_change=on_change)
        inventory._sources = [[CpuSource()], [FakeSource(fakes, used_bytes=inventory.resident_bytes)]]
        return inventory

    async def refresh(self) -> tuple[Device, ...]:
        """Ask every source now, tell what changed, and return the devices.

        A source that fails or hangs leaves what it last told: unknown is not vanished.
        """
        found: list[Device] = []
        for chain in self._sources:
            found += await self._ask(chain)
        before, self.devices = self.devices, tuple(found)
        self._tell(before)
        return self.devices

    async def watch(self, interval_s: float) -> None:
        """Refresh for ever."""
        while True:
            await asyncio.sleep(interval_s)
            await self.refresh()

    def hold(self, owner: str, verdict: FitVerdict) -> None:
        """Promise a replica what its fit said that it needs, until `release`."""
        needs = {one.device_id: one.needed_bytes - one.headroom_bytes for one in verdict.devices}
        self._holdings[owner] = Holding(needs=needs)

    def settle(self, owner: str) -> None:
        """The replica is loaded: what it holds now counts as used by the vendor's own figures."""
        if owner in self._holdings:
            self._holdings[owner].resident = True

    def release(self, owner: str) -> None:
        """The replica is gone, and its memory back."""
        self._holdings.pop(owner, None)

    def resident_bytes(self, device_id: str) -> int:
        """Return what loaded replicas hold of a device, by the ledger."""
        return sum(one.needs.get(device_id, 0) for one in self._holdings.values() if one.resident)

    def rooms(self, mask: DeviceMask) -> list[Room]:
        """Return the mask's devices as the fit policy sees them, in the mask's order; missing ones are left out."""
        by_id = {one.id: one for one in self.devices}
        return [
            Room(
                device_id=one.id,
                name=one.name,
                is_cpu=one.kind is DeviceKind.CPU,
                total_bytes=one.memory_total_bytes,
                free_bytes=one.memory_free_bytes,
                promised_bytes=self._promised_bytes(one.id),
            )
            for device_id in mask.ids
            if (one := by_id.get(device_id))
        ]

    def held(self) -> dict[str, dict[str, int]]:
        """Return what each replica holds or was promised, by its name, on each device."""
        return {owner: dict(one.needs) for owner, one in self._holdings.items()}

    def _promised_bytes(self, device_id: str) -> int:
        loading = [one for one in self._holdings.values() if not one.resident]
        return promised((one.needs.get(device_id, 0), 0) for one in loading)

    async def _ask(self, chain: Sequence[DeviceSource]) -> list[Device]:
        failed = False
        for source in chain:
            try:
                async with asyncio.timeout(DISCOVERY_S_MAX):
                    found = await asyncio.to_thread(source.discover)
            except (DiscoveryFailed, TimeoutError) as error:
                log.warning("device_discovery_failed", source=source.name, error=str(error) or "it hangs")
                failed = True
                continue
            if found:
                return found
        if not failed:
            return []
        return [one for one in self.devices if one.kind is DeviceKind.CUDA]

    def _tell(self, before: Sequence[Device]) -> None:
        was, now = {one.id: one for one in before}, {one.id: one for one in self.devices}
        changes = [(DeviceEvent.APPEARED, now[one]) for one in now if before and one not in was]
        changes += [(DeviceEvent.VANISHED, was[one]) for one in was if one not in now]
        for device in self.devices:
            heat = _heat(device)
            if heat is not self._heat.get(device.id, DeviceEvent.COOLED):
                changes.append((heat, device))
            self._heat[device.id] = heat
        for event, device in changes:
            self.on_change(DeviceChange(event=event, device=device))


def _heat(device: Device) -> DeviceEvent:
    temperature = device.temperature_c or 0.0
    if temperature > TEMPERATURE_CRITICAL_C:
        return DeviceEvent.CRITICAL
    return DeviceEvent.HOT if temperature > TEMPERATURE_WARN_C else DeviceEvent.COOLED
