"""Whether a process group works: the only sign of life of a program that reports nothing while it loads."""

import time
from contextlib import suppress

import psutil

from skep.process import group

SHARE_MIN = 0.03
"""Of one core, since the last look: less is waiting. A full machine may give no more to a program that computes."""


class Effort:
    """Looks at the processor time that a group has used, its ended children included."""

    def __init__(self, pgid: int) -> None:
        self._pgid = pgid
        self._used_s, self._at_s = self._read(), time.monotonic()

    def grew(self) -> bool:
        """True when the group has been working since this was last asked."""
        used_s, now = self._read(), time.monotonic()
        worked, passed = used_s - self._used_s, now - self._at_s
        self._used_s, self._at_s = used_s, now
        return worked >= SHARE_MIN * passed and worked > 0

    def _read(self) -> float:
        total = 0.0
        for member in group.members(self._pgid):
            with suppress(psutil.Error):  # It ended meanwhile: its parent has its time.
                total += sum(psutil.Process(member.pid).cpu_times()[:4])
        return total
