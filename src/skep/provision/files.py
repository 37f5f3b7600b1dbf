"""Files made sure of: room for them, and renames that survive a power cut."""

import errno
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import aiohttp

from skep.errors.provision import DownloadFailed, NoSpace

SPARE_BYTES: Final = 64 << 20
"""Left free on the disk beside what a large download needs."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_room(folder: Path, need_bytes: int) -> None:
    """Raises: NoSpace when the disk of `folder` has too little room for so many bytes more."""
    free = shutil.disk_usage(folder).free
    if free < need_bytes + (SPARE_BYTES if need_bytes > SPARE_BYTES else 0):
        raise NoSpace(
            f"{folder} has {free >> 20} MiB free, the download needs {(need_bytes >> 20) + 1} MiB: free some room",
            path=str(folder),
            free_bytes=free,
            need_bytes=need_bytes,
        )


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Tell what the disk refuses in our words; the network's errors pass. Raises: NoSpace, DownloadFailed."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, ConnectionError):
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpace(
                f"cannot write {path}: {error.strerror}; free some room and run it again", path=str(path)
            ) from error
        raise DownloadFailed(
            f"cannot write {path}: {error.strerror}; look at the folder's owner and mode", path=str(path)
        ) from error
