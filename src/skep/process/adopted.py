"""Taking over a process that somebody else started: an earlier hive's worker."""

import os

from skep.errors.process import ProcessGone
from skep.process.identity import read_stat
from skep.process.owned import Exit, OwnedProcess


class Adopted(OwnedProcess):
    """A process that we did not start: its end is seen, how it ended is not."""

    def _collect(self) -> Exit:
        return Exit(forced=self._forced)


async def adopt(pid: int, started_at: int) -> Adopted:
    """Watch the process from now on. Raises: ProcessGone when it ended, or `pid` is another one by now."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        raise ProcessGone(f"process {pid} is gone", pid=pid) from None
    stat = read_stat(pid)  # After the pidfd was opened, so that both speak of one process.
    if stat is None or stat.is_dead or stat.started_at != started_at:
        os.close(descriptor)
        raise ProcessGone(f"process {pid} is gone; its pid belongs to another", pid=pid)
    if stat.group != pid or stat.session != pid:
        os.close(descriptor)
        raise ProcessGone(f"process {pid} does not lead its own group, so it is not one of ours", pid=pid)
    return Adopted(pid=pid, started_at=started_at, pidfd=descriptor)
