"""Intermediate traces in `.tmp/`: each appears whole under its name, or not at all."""

import os
import threading
from pathlib import Path

from skep.arena.trace.trace import Trace
from skep.errors.arena import RecordsUnwritable


def save_trace(trace: Trace, folder: Path, name: str) -> str:
    """Write a trace as `<name>.msgpack`; return its path. Raises: RecordsUnwritable.

    It is scratch that the same inputs make again, so it is renamed into place but not forced to disk.
    """
    path = folder / f"{name}.msgpack"
    temporary = folder / f".{name}.{os.getpid()}.{threading.get_ident()}.tmp"
    try:
        try:
            temporary.write_bytes(trace.to_bytes())
        except FileNotFoundError:
            folder.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(trace.to_bytes())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RecordsUnwritable(f"{path}: {error.strerror}", folder=str(folder)) from error
    return str(path)
