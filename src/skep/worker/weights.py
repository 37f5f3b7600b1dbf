"""Whether the model's file is still the one that was loaded: its pages are mapped, so a rewrite changes the model that runs.

A file that is truncated in place ends its readers with SIGBUS, at once; one that is rewritten in place makes them say
something else. Replacing it by a rename harms nobody: who has it open keeps the old one.
"""

import hashlib
import os
from pathlib import Path
from typing import Final

from skep.errors.worker import ModelFileChanged

CHECK_S: Final = 1.0
SAMPLES: Final = 64
SAMPLE_BYTES: Final = 4096


class WeightsWatch:
    """Remembers a file's size, time and samples of its content."""

    def __init__(self, path: Path, *, now_s: float) -> None:
        self._path = path
        self._stat = path.stat()
        self._digest = _digest(path, self._stat.st_size)
        self._looked_s = now_s

    def check(self, now_s: float) -> ModelFileChanged | None:
        """Return what is wrong, at most every CHECK_S; None while the file is the same, or was replaced by another."""
        if now_s - self._looked_s < CHECK_S:
            return None
        self._looked_s = now_s
        try:
            found = self._path.stat()
            if (found.st_dev, found.st_ino) != (self._stat.st_dev, self._stat.st_ino):
                return None
            if (found.st_size, found.st_mtime_ns) == (self._stat.st_size, self._stat.st_mtime_ns):
                return None
            if found.st_size == self._stat.st_size and _digest(self._path, found.st_size) == self._digest:
                self._stat = found  # Only its time was set.
                return None
        except OSError:  # Unlinked, or out of reach: what is mapped stays.
            return None
        return ModelFileChanged(
            f"{self._path} was rewritten while it was being served; replace model files by a rename",
            path=str(self._path),
        )


def _digest(path: Path, size: int) -> bytes:
    """Hash samples spread evenly from the first bytes on. Raises: OSError."""
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for at in range(0, max(size, 1), max(size // SAMPLES, SAMPLE_BYTES)):
            digest.update(os.pread(descriptor, SAMPLE_BYTES, at))
    finally:
        os.close(descriptor)
    return digest.digest()
