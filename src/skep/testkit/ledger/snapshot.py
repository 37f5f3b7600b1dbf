"""What this process holds: children, file descriptors, threads, temporary files, device memory. Fast enough for every test."""

import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from skep.process.identity import read_stat
from skep.testkit.ledger.device import own_bytes

_INTERNET = (socket.AF_INET, socket.AF_INET6)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Snapshot:
    """Each thing by an identity that is not used twice: a child by pid and start, an fd by number and target."""

    children: frozenset[tuple[int, int]]
    fds: frozenset[tuple[int, str]]
    threads: frozenset[threading.Thread]
    files: frozenset[str]
    device_bytes: int = 0

    def leaked_since(self, before: "Snapshot") -> "Snapshot":
        """What is here and was not there before."""
        return Snapshot(
            children=self.children - before.children,
            fds=self.fds - before.fds,
            threads=frozenset(each for each in self.threads - before.threads if each.is_alive()),
            files=self.files - before.files,
            device_bytes=max(0, self.device_bytes - before.device_bytes),
        )

    def with_also(self, more: "Snapshot") -> "Snapshot":
        """Both together."""
        return Snapshot(
            children=self.children | more.children,
            fds=self.fds | more.fds,
            threads=self.threads | more.threads,
            files=self.files | more.files,
            device_bytes=self.device_bytes + more.device_bytes,
        )

    @property
    def is_empty(self) -> bool:
        """Nothing at all."""
        return not (self.children or self.fds or self.threads or self.files or self.device_bytes)


NOTHING = Snapshot(frozenset(), frozenset(), frozenset(), frozenset())


def take() -> Snapshot:
    """Look once; costs some tens of microseconds."""
    return Snapshot(
        children=frozenset(descendants(os.getpid())),
        fds=frozenset(_descriptors()),
        threads=frozenset(threading.enumerate()),
        files=frozenset(os.listdir(tempfile.gettempdir())),  # noqa: PTH208 - names alone, and fast
        device_bytes=own_bytes() or 0,
    )


def descendants(pid: int) -> Iterator[tuple[int, int]]:
    """Children and theirs, as (pid, kernel start time), from the kernel's own lists: no scan of every process."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            listed = (task / "children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for text in listed:
            child = int(text)
            stat = read_stat(child)
            if stat is None:
                continue
            yield child, stat.started_at
            try:
                yield from descendants(child)
            except (FileNotFoundError, ProcessLookupError):
                continue


def listening_port(fd: int) -> int | None:
    """Return the TCP port that one of our descriptors listens on; None for any other descriptor.

    Asked of the socket itself: the kernel's table of all sockets takes milliseconds on a busy machine.
    """
    try:
        with socket.socket(fileno=os.dup(fd)) as found:
            if found.family in _INTERNET and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return int(found.getsockname()[1])
    except OSError:
        return None
    return None


def rss_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def _descriptors() -> Iterator[tuple[int, str]]:
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names alone, and fast
        try:
            yield int(name), os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115 - as above
        except FileNotFoundError:
            continue  # The descriptor of the listing itself.
