"""How many compute threads are right here: physical cores that this process may really use."""

import os
from pathlib import Path
from typing import Final

import psutil

THREADS_MAX: Final = 512
_CGROUP_ROOT: Final = Path("/sys/fs/cgroup")


def default_threads(*, cgroup_root: Path = _CGROUP_ROOT) -> int:
    """Return physical cores, capped by the CPU affinity and the cgroup's quota; at least 1.

    More than physical cores slows matrix work down, and more than the quota gets the process throttled.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    physical = psutil.cpu_count(logical=False) or allowed
    quota = cgroup_cpus(cgroup_root)
    return max(1, min(allowed, physical, THREADS_MAX, *([quota] if quota else [])))


def cgroup_cpus(root: Path = _CGROUP_ROOT) -> int | None:
    """Return the whole CPUs of the cgroup's quota (v2, then v1), at least 1; None when there is no limit."""
    try:
        quota_text, period_text = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota_text = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period_text = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        quota, period = int(quota_text), int(period_text)
    except ValueError:  # "max": no limit.
        return None
    return max(1, quota // period) if quota > 0 and period > 0 else None
