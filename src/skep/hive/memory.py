"""Waiting until a process that is gone has given its device memory back, before the next start counts on it."""

import asyncio

import structlog

from skep.hive.devices.inventory import Inventory
from skep.spec.device import DeviceKind, DeviceMask

log = structlog.get_logger(__name__)

BACK_S_MAX = 10.0
_LOOK_S = 0.1


async def wait_memory_back(inventory: Inventory, mask: DeviceMask, pid: int) -> bool:
    """Return True when no device of the mask lists the process any more; False when that took too long.

    The CPU's memory is back when the process is reaped; fake devices follow our own ledger.
    """
    if not any(one.kind is DeviceKind.CUDA and one.id in mask.ids for one in inventory.devices):
        return True
    try:
        async with asyncio.timeout(BACK_S_MAX):
            while True:
                devices = await inventory.refresh()
                if not any(pid in one.pids for one in devices if one.id in mask.ids):
                    return True
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        log.warning("device_memory_not_back", pid=pid, device_mask=mask.ids, waited_s=BACK_S_MAX)
        return False
