"""A child's log file: opened for it, bounded, its last lines, and following it."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from skep.errors.process import SpawnFailed

BYTES_MAX = 16 * 1024 * 1024
TAIL_BYTES_MAX = 256 * 1024
_FOLLOW_S = 0.2


def open_for_append(path: Path) -> int:
    """Return a descriptor that appends, the file readable by its owner only. Raises: SpawnFailed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise SpawnFailed(
            f"cannot write the log file {path}: {error.strerror}", argv0="", reason=str(error)
        ) from error


def bound(path: Path, bytes_max: int = BYTES_MAX) -> bool:
    """When the file is larger than that, keep its last quarter as `.1` and empty it; True when that was done.

    The child appends, so it goes on at the start of the emptied file; lines written in between are lost.
    """
    older = path.with_suffix(path.suffix + ".1")
    try:
        if path.stat().st_size <= bytes_max:
            return False
        try:
            older.write_bytes(_last_bytes(path, bytes_max // 4))
        except OSError:  # A full disk: emptying the file is what helps now.
            older.unlink(missing_ok=True)
        os.truncate(path, 0)
    except OSError:
        return False
    return True


def tail(path: Path, lines: int) -> list[str]:
    """Return the last lines, fewer when they are long (256 KiB at most); none when there is no file."""
    with suppress(FileNotFoundError):
        return _last_bytes(path, TAIL_BYTES_MAX).decode("utf-8", "replace").splitlines()[-lines:]
    return []


def size(path: Path) -> int:
    """Return how long the file is now; 0 when there is none."""
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def tail_from(path: Path, position: int, lines: int) -> str:
    """Return the last lines of what was written after `position`; all of it when the file was emptied since."""
    length = size(path)
    start = position if position <= length else 0
    if length == start:
        return ""
    data = _read_at(path, max(start, length - TAIL_BYTES_MAX), TAIL_BYTES_MAX)
    return "\n".join(data.decode("utf-8", "replace").splitlines()[-lines:])


async def follow(path: Path, *, lines: int) -> AsyncIterator[str]:
    """Yield the last lines, then new ones as they come, for ever; a file that was emptied or replaced is read anew."""
    position, rest = 0, b""
    with suppress(FileNotFoundError):
        position = path.stat().st_size
    for line in tail(path, lines):
        yield line
    while True:
        with suppress(FileNotFoundError):
            size = path.stat().st_size
            if size < position:
                position, rest = 0, b""
            if size > position:
                chunk = _read_at(path, position, min(size - position, TAIL_BYTES_MAX))
                position += len(chunk)
                *whole, rest = (rest + chunk).split(b"\n")
                for one in whole:
                    yield one.decode("utf-8", "replace")
                if len(rest) > TAIL_BYTES_MAX:
                    yield rest.decode("utf-8", "replace")
                    rest = b""
                continue
        await asyncio.sleep(_FOLLOW_S)


def _last_bytes(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - count))
        return file.read(count)


def _read_at(path: Path, position: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(position)
        return file.read(count)
