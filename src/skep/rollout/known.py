"""Which hosts this controller has installed before: the only way to notice that one is no longer declared."""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from skep.errors import InvalidConfig
from skep.spec.host import HiveHost


def read(path: Path) -> list[HiveHost]:
    """Return the remembered hosts; none when there is no record. Raises: InvalidConfig when it is damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[HiveHost])
    except FileNotFoundError:
        return []
    except msgspec.DecodeError as error:
        raise InvalidConfig(
            f"{path} is damaged: remove it; undeclared hosts are then not noticed", path=str(path)
        ) from error


def write(path: Path, hosts: Sequence[HiveHost]) -> None:
    """Replace the record, atomically, readable by nobody else."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_suffix(".new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(hosts))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
