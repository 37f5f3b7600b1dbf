"""Waiting until a process that is gone has given its device memory back, before the next start counts on it."""

import asyncio

import structlog

from skep.hive.devices.inventory import Inventory
from skep.process import group
from skep.process.owned import OwnedProcess
from skep.spec.device import DeviceKind, DeviceMask

log = structlog.get_logger(__name__)

BACK_S_MAX = 10.0
_LOOK_S = 0.1


def holders(inventory: Inventory, mask: DeviceMask, process: OwnedProcess) -> frozenset[int]:
    """Return who may hold memory of the mask for a process: its whole group; looked up only where somebody tells.

    It does not await: what follows is the stop, and nothing may come between.
    """
    if not _is_told_by_vendor(inventory, mask):
        return frozenset({process.pid})
    return frozenset({process.pid, *(one.pid for one in group.members(process.pgid))})


async def wait_memory_back(
    inventory: Inventory, mask: DeviceMask, pids: frozenset[int], *, within_s: float = BACK_S_MAX
) -> bool:
    """Return True when no device of the mask lists any of these processes any more; False when that took too long.

    The CPU's memory is back when the process is reaped; fake devices follow our own ledger.
    """
    if not _is_told_by_vendor(inventory, mask):
        return True
    try:
        async with asyncio.timeout(within_s):
            while True:
                devices = await inventory.refresh()
                if not any(pids.intersection(one.pids) for one in devices if one.id in mask.ids):
                    return True
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        log.warning("device_memory_not_back", pids=sorted(pids), device_mask=mask.ids, waited_s=within_s)
        return False


def _is_told_by_vendor(inventory: Inventory, mask: DeviceMask) -> bool:
    return any(one.kind is DeviceKind.CUDA and one.id in mask.ids for one in inventory.devices)
