"""How many bytes weights and contexts hold: read from the library's own log."""

import re
from collections.abc import Iterable
from typing import Final

from skep.runtime.backend import MemoryUse

# "load_tensors:   CPU_Mapped model buffer size =     1.64 MiB", "CUDA0 KV buffer size = …", "CUDA_Host compute buffer size = …"
_BUFFER: Final = re.compile(
    r"(?P<device>[\w-]+)\s+(?:model|KV|RS|compute|output|SWA)\s+buffer size\s*=\s*(?P<mib>[\d.]+) MiB"
)
_HOST_PREFIXES: Final = ("CPU", "BLAS", "AMX", "ACCEL")
_MIB: Final = 1024 * 1024


def buffers(lines: Iterable[str]) -> MemoryUse:
    """Sum the buffers that the log lines tell of; host buffers of a GPU count as RAM."""
    ram, device = 0.0, 0.0
    for line in lines:
        for match in _BUFFER.finditer(line):
            name, size = match["device"], float(match["mib"]) * _MIB
            if name.startswith(_HOST_PREFIXES) or name.endswith("_Host"):
                ram += size
            else:
                device += size
    return MemoryUse(ram_bytes=round(ram), device_bytes=round(device))
