"""Intermediate traces in `.tmp/`: each appears whole under its name, or not at all."""

import contextlib
import errno
import os
import threading
from pathlib import Path

from skep.arena.trace.trace import Trace
from skep.errors.arena import RecordsUnwritable


def save_trace(trace: Trace, folder: Path, name: str) -> str:
    """Write a trace as `<name>.msgpack`; return its path. Raises: RecordsUnwritable.

    It is scratch that the same inputs make again, so it is renamed into place but not forced to disk.
    """
    path = f"{folder}/{name}.msgpack"
    temporary = f"{folder}/.{name}.{os.getpid()}.{threading.get_ident()}.tmp"
    data = trace.to_bytes()
    try:
        try:
            _write(temporary, data)
        except FileNotFoundError:
            folder.mkdir(parents=True, exist_ok=True)
            _write(temporary, data)
        os.replace(temporary, path)  # noqa: PTH105 - as below
    except OSError as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108 - as below
        raise RecordsUnwritable(f"{path}: {error.strerror}", folder=str(folder)) from error
    return str(Path(path))


def _write(path: str, data: bytes) -> None:
    with open(path, "wb", buffering=0) as file:  # noqa: PTH123 - a step's hot path; pathlib costs more than the write
        written = file.write(data)
    if written != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
