"""Who a process is: its pid and the kernel's start time together, for a pid alone may be reused.

Start times are clock ticks since boot (field 22 of /proc/PID/stat, proc_pid_stat(5)), so a wall clock that jumps
changes nothing. They mean something within one boot only: `boot_id` names it.
"""

import os
from pathlib import Path
from typing import NamedTuple

from skep.errors.process import ProcessGone

_DEAD = frozenset("ZXx")


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that matter here. `started_at` in clock ticks since boot."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    started_at: int

    @property
    def is_dead(self) -> bool:
        """True for a zombie: it holds nothing but its pid."""
        return self.state in _DEAD


def read_stat(pid: int) -> Stat | None:
    """Return what the kernel says of `pid`; None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name stands in parentheses and may hold any byte, also parentheses and spaces.
    fields = text[text.rindex(b")") + 2 :].split()
    return Stat(pid, fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def started_at(pid: int) -> int:
    """Return the start time of `pid`. Raises: ProcessGone."""
    stat = read_stat(pid)
    if stat is None:
        raise ProcessGone(f"there is no process {pid}", pid=pid)
    return stat.started_at


def is_running(pid: int, started_at: int) -> bool:
    """True when `pid` is still the process that started then, and is not a zombie."""
    stat = read_stat(pid)
    return stat is not None and stat.started_at == started_at and not stat.is_dead


def boot_id() -> str:
    """Return the id of this boot; start times of another one say nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def all_stats() -> list[Stat]:
    """Return every process that can be seen now."""
    stats = (read_stat(int(name)) for name in os.listdir("/proc") if name.isdecimal())  # noqa: PTH208 - hot
    return [stat for stat in stats if stat is not None]
