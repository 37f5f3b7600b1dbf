"""What fits into this machine's memory, asked before the library touches it: an allocation too large kills the process."""

from pathlib import Path
from typing import Final

import psutil

from skep.errors.runtime import InsufficientMemory

_CGROUP_ROOT: Final = Path("/sys/fs/cgroup")


def ram_available_bytes(*, cgroup_root: Path = _CGROUP_ROOT) -> int:
    """Return what may still be allocated: free and reclaimable RAM, or the rest of the cgroup's limit if less."""
    available = int(psutil.virtual_memory().available)
    left = _cgroup_left_bytes(cgroup_root)
    return available if left is None else min(available, left)


def check_ram(needed_bytes: int, *, what: str) -> None:
    """Raise InsufficientMemory when `needed_bytes` are not available."""
    available = ram_available_bytes()
    if needed_bytes > available:
        raise InsufficientMemory(
            f"{what} needs {_mib(needed_bytes)} MiB and {_mib(available)} MiB are free; "
            "take a smaller context, fewer slots or a smaller model",
            needed_bytes=needed_bytes,
            available_bytes=available,
        )


def _cgroup_left_bytes(root: Path) -> int | None:
    """Return limit minus use of the cgroup (v2, then v1), reclaimable page cache not counted; None without a limit."""
    for limit_name, used_name, stat_name in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            limit, used = int((root / limit_name).read_text()), int((root / used_name).read_text())
            stat = (root / stat_name).read_text()
        except (OSError, ValueError):  # Absent, or "max": no limit.
            continue
        return max(0, limit - used + _inactive_file_bytes(stat))
    return None


def _inactive_file_bytes(stat: str) -> int:
    for line in stat.splitlines():
        name, _, value = line.partition(" ")
        if name in {"inactive_file", "total_inactive_file"} and value.isdigit():
            return int(value)
    return 0


def _mib(size: int) -> int:
    return -(-size // (1024 * 1024))
