"""Writing so that a reader, or a kill, never meets half a record."""

import os
from pathlib import Path
from typing import Self

from skep.errors.proof import BundleWriteFailed

LINE_BYTES_MAX = 4 << 20
"""A longer record is refused: whatever wrote it must shorten its texts first."""


class Journal:
    """An append-only file of lines, each written by one `write(2)` with O_APPEND.

    On a local file system that is atomic, so several processes may append to one file. The data is in the kernel
    when `append` returns: it survives the death of the process, and with `sync` that of the machine.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._torn = False

    def append(self, line: bytes) -> None:
        """Add one line (without its newline). Raises: BundleWriteFailed."""
        data = (b"\n" if self._torn else b"") + line + b"\n"
        if len(data) > LINE_BYTES_MAX:
            raise BundleWriteFailed(f"a record of {len(data)} bytes is over the limit of {LINE_BYTES_MAX}")
        try:
            written = os.write(self._fd, data)
        except OSError as error:
            raise BundleWriteFailed(
                f"cannot write {self.path}: {error.strerror}", path=str(self.path)
            ) from error
        self._torn = written != len(data)
        if self._torn:
            raise BundleWriteFailed(f"{self.path} took {written} of {len(data)} bytes: is the disk full?")

    def sync(self) -> None:
        """Wait until the disk has it."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_whole(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace a file so that readers see the old or the new one, never a mixture. Raises: BundleWriteFailed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BundleWriteFailed(f"cannot write {path}: {error.strerror}", path=str(path)) from error
