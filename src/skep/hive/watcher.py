"""Watching a folder of handoff files: what serves on this machine, for anything that wants to know.

It looks at names, sizes, times and inodes twice a second, so it needs nothing of the kernel, works on every file system,
and sees a rewrite that keeps the name. A file that cannot be read is told once for each version of it, and counted.
"""

import asyncio
from collections.abc import AsyncIterator
from enum import StrEnum, auto
from pathlib import Path

import msgspec
import structlog

from skep.hive.handoff import read
from skep.wire.handoff import Handoff

log = structlog.get_logger(__name__)

LOOK_S = 0.5


class Change(StrEnum):
    """What became of a file."""

    NEW = auto()
    REWRITTEN = auto()
    DELETED = auto()
    MALFORMED = auto()


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """One change. `handoff` is the new contents; of a deleted file the last good ones, None when there were none."""

    change: Change
    path: Path
    handoff: Handoff | None = None
    error: str = ""


_Version = tuple[int, int, int]


class HandoffWatcher:
    """Follows one folder, which may come and go."""

    def __init__(self, folder: Path, *, look_s: float = LOOK_S) -> None:
        self._folder, self._look_s = folder, look_s
        self._versions: dict[Path, _Version] = {}
        self._good: dict[Path, Handoff] = {}
        self.malformed = 0

    async def follow(self) -> AsyncIterator[Sighting]:
        """Yield what is there, then every change, for ever."""
        while True:
            for sighting in await asyncio.to_thread(self.look):
                yield sighting
            await asyncio.sleep(self._look_s)

    def look(self) -> list[Sighting]:
        """Return what changed since the last look."""
        present = self._present()
        gone = [path for path in self._versions if path not in present]
        found = [
            Sighting(change=Change.DELETED, path=path, handoff=self._good.pop(path, None)) for path in gone
        ]
        for path in gone:
            del self._versions[path]
        for path, version in present.items():
            if self._versions.get(path) != version:
                self._versions[path] = version
                found.append(self._read(path))
        return found

    def _read(self, path: Path) -> Sighting:
        result = read(path)
        if result.handoff is None:
            self.malformed += 1
            log.warning("handoff_malformed", path=str(path), error=result.error)
            return Sighting(change=Change.MALFORMED, path=path, error=result.error)
        change = Change.REWRITTEN if path in self._good else Change.NEW
        self._good[path] = result.handoff
        return Sighting(change=change, path=path, handoff=result.handoff)

    def _present(self) -> dict[Path, _Version]:
        found = {}
        for path in sorted(self._folder.glob("*.json")):
            try:
                stat = path.stat()
            except OSError:
                continue  # Removed since it was listed; the next look says so.
            found[path] = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        return found
