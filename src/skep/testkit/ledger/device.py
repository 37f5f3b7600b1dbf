"""Device memory that this process holds, as NVIDIA's driver tells it; None where there is no driver.

Other vendors' drivers are not asked. In a container whose process ids the driver does not know, nothing can be told of
this process, and the memory of all processes is no one's leak: then it is None as well.
"""

import functools
import os
from typing import Any

CONTEXT_BYTES_MAX = 1 << 30
"""The first use of a device makes a context that lives as long as the process: up to this much it is no leak."""
TOLERANCE_BYTES = 16 << 20


def own_bytes(library: Any = None) -> int | None:
    """Return what this process holds on all devices together."""
    found = library or _nvml()
    if found is None:
        return None
    total, is_known = 0, False
    for index in range(found.nvmlDeviceGetCount()):
        handle = found.nvmlDeviceGetHandleByIndex(index)
        for process in found.nvmlDeviceGetComputeRunningProcesses(handle):
            if process.pid == os.getpid() and process.usedGpuMemory is not None:
                total, is_known = total + process.usedGpuMemory, True
    return total if is_known else None


def used_bytes(library: Any = None) -> int | None:
    """Return what all processes of the machine hold on all its devices: for the record, not for blame."""
    found = library or _nvml()
    if found is None:
        return None
    handles = [found.nvmlDeviceGetHandleByIndex(index) for index in range(found.nvmlDeviceGetCount())]
    return sum(int(found.nvmlDeviceGetMemoryInfo(handle).used) for handle in handles)


def leaked_bytes(grown: int, *, is_first_use: bool) -> int:
    """Return how much of a growth is a leak: not a first context, nor what a driver keeps for itself."""
    left = grown - (CONTEXT_BYTES_MAX if is_first_use else 0)
    return left if left > TOLERANCE_BYTES else 0


@functools.cache
def _nvml() -> Any:
    """Open the driver's library once for the life of the process; None where there is none."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml
