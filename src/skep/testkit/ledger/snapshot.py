"""What this process holds: children, file descriptors, threads, temporary files. Fast enough for every test."""

import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from skep.process.identity import read_stat

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Snapshot:
    """Each thing by an identity that is not used twice: a child by pid and start, an fd by number and target."""

    children: frozenset[tuple[int, int]]
    fds: frozenset[tuple[int, str]]
    threads: frozenset[threading.Thread]
    files: frozenset[str]

    def leaked_since(self, before: "Snapshot") -> "Snapshot":
        """What is here and was not there before."""
        return Snapshot(
            children=self.children - before.children,
            fds=self.fds - before.fds,
            threads=frozenset(each for each in self.threads - before.threads if each.is_alive()),
            files=self.files - before.files,
        )

    def with_also(self, more: "Snapshot") -> "Snapshot":
        """Both together."""
        return Snapshot(
            children=self.children | more.children,
            fds=self.fds | more.fds,
            threads=self.threads | more.threads,
            files=self.files | more.files,
        )

    @property
    def is_empty(self) -> bool:
        """Nothing at all."""
        return not (self.children or self.fds or self.threads or self.files)


NOTHING = Snapshot(frozenset(), frozenset(), frozenset(), frozenset())


def take() -> Snapshot:
    """Look once; costs some tens of microseconds."""
    return Snapshot(
        children=frozenset(descendants(os.getpid())),
        fds=frozenset(_descriptors()),
        threads=frozenset(threading.enumerate()),
        files=frozenset(os.listdir(tempfile.gettempdir())),  # noqa: PTH208 - names alone, and fast
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


def listening_ports() -> dict[str, int]:
    """The listening TCP sockets of this network namespace: inode text to port."""
    found = {}
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A":
                found[fields[9]] = int(fields[1].rpartition(":")[2], 16)
    return found


def rss_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def _descriptors() -> Iterator[tuple[int, str]]:
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names alone, and fast
        try:
            yield int(name), os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115 - as above
        except FileNotFoundError:
            continue  # The descriptor of the listing itself.
