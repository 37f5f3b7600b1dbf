"""The CPU as a device: the machine's memory, or what this process's control groups leave of it."""

import os
from pathlib import Path

import psutil

from skep.policy.mask import CPU_ID
from skep.spec.device import Device, DeviceKind

_CGROUPS = Path("/sys/fs/cgroup")
_UNLIMITED_BYTES = 1 << 60


class CpuSource:
    """Reads /proc and the control groups (v2, or the memory controller of v1)."""

    name = "cpu"

    def __init__(self, *, root: Path = _CGROUPS, groups: Path = Path("/proc/self/cgroup")) -> None:
        self._root, self._groups = root, groups

    def discover(self) -> list[Device]:
        """Return the CPU."""
        memory = psutil.virtual_memory()
        total, free = memory.total, memory.available
        for limit, used in self._limits():
            total, free = min(total, limit), min(free, max(limit - used, 0))
        return [
            Device(
                id=CPU_ID,
                kind=DeviceKind.CPU,
                index=0,
                name=f"CPU, {cores()} cores",
                memory_total_bytes=total,
                memory_used_bytes=total - free,
                memory_free_bytes=free,
            )
        ]

    def _limits(self) -> list[tuple[int, int]]:
        """Return (limit, used) of every group from ours up to the root that has a limit."""
        found = []
        for folder, names in self._folders():
            limit = _number(folder / names[0])
            if limit is not None and limit < _UNLIMITED_BYTES:
                used = (_number(folder / names[1]) or 0) - _reclaimable(folder / "memory.stat")
                found.append((limit, max(used, 0)))
        return found

    def _folders(self) -> list[tuple[Path, tuple[str, str]]]:
        try:
            lines = self._groups.read_text(encoding="ascii").splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            _, controllers, path = line.split(":", 2)
            if not controllers:
                base, names = self._root, ("memory.max", "memory.current")
            elif "memory" in controllers.split(","):
                base, names = self._root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
            else:
                continue
            inner = Path(path.lstrip("/"))
            found += [(base / one, names) for one in (inner, *inner.parents)]
        return found


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _reclaimable(path: Path) -> int:
    """Return the page cache that the kernel gives up first, which counts as used and is not."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    values = dict(line.split(" ", 1) for line in lines if " " in line)
    return int(values.get("inactive_file", values.get("total_inactive_file", "0")))
