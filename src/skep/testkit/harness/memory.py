"""Memory of one process under test: before, peak and after, on the host and on its devices."""

from contextlib import suppress
from pathlib import Path

import msgspec

MIB = 2**20


class MemoryMoment(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that a process holds; None where it could not be told."""

    ram_bytes: int | None = None
    device_bytes: int | None = None

    def __str__(self) -> str:
        """Return it for people."""
        return f"ram {_mib(self.ram_bytes)}, device {_mib(self.device_bytes)}"


class MemoryLedger:
    """`before` is right after the model became ready, `after` the last look before the end.

    The peak of RAM is the kernel's own high-water mark; the peak of device memory is the most that was seen.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.before = MemoryMoment()
        self.after = MemoryMoment()
        self.peak = MemoryMoment()

    def begin(self, device_bytes: int | None) -> None:
        """Note the first moment."""
        self.look(device_bytes)
        self.before = self.after

    def look(self, device_bytes: int | None = None) -> MemoryMoment:
        """Note a moment; the worker's own figure of device memory comes from its health."""
        ram_bytes, peak_bytes = _resident(self._pid)
        if device_bytes is None:
            device_bytes = self.after.device_bytes
        if ram_bytes is not None:
            self.after = MemoryMoment(ram_bytes=ram_bytes, device_bytes=device_bytes)
            known = [one for one in (self.peak.device_bytes, device_bytes) if one is not None]
            self.peak = MemoryMoment(ram_bytes=peak_bytes, device_bytes=max(known, default=None))
        return self.after

    def lines(self) -> list[str]:
        """Return it for a report."""
        return [f"before  {self.before}", f"peak    {self.peak}", f"after   {self.after}"]


def _resident(pid: int) -> tuple[int | None, int | None]:
    """Return (resident, peak resident) bytes of a living process (proc_pid_status(5))."""
    found: dict[str, int] = {}
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
            name, _, rest = line.partition(":")
            if name in ("VmRSS", "VmHWM"):
                found[name] = int(rest.split()[0]) * 1024
    return found.get("VmRSS"), found.get("VmHWM")


def _mib(count: int | None) -> str:
    return "unknown" if count is None else f"{count / MIB:.1f} MiB"
