"""The handoff files of this hive, and the records of what it has spawned that a successor needs to find everything."""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from skep.errors import InvalidInput
from skep.errors.hive import HandoffFailed
from skep.hive import files
from skep.wire import handoff as codec
from skep.wire.handoff import Handoff

log = structlog.get_logger(__name__)

SPAWNS = "spawns"
NONCE_VARIABLE = "SKEP_WORKER_NONCE"
"""In the environment of everything that a hive spawns, so that it can be found wherever it went."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the folder: its handoff, or why it is none."""

    path: Path
    handoff: Handoff | None = None
    error: str = ""


class SpawnRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Written before a spawn (pid 0) and again after it, gone when the process is: nothing we spawn is unknown.

    `drain_until_s` (monotonic, of that boot): it is being drained, and its jobs have until then.
    """

    pool_id: str
    replica_id: str
    nonce: str
    pid: int = 0
    pid_started_at: int = 0
    boot_id: str = ""
    recorded_at: float = 0.0
    engine: str = ""
    url: str = ""
    token: str = ""
    drain_until_s: float | None = None

    def __repr__(self) -> str:
        """Return it without its token."""
        return f"SpawnRecord({self.pool_id}-{self.replica_id}, pid={self.pid})"


class HandoffFolder:
    """`<runtime_dir>/engines`: one file a serving replica."""

    def __init__(self, runtime: Path) -> None:
        self.path = runtime / codec.FOLDER

    def open(self) -> None:
        """Make the folder, and remove what interrupted writes left."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.remove_temporaries(self.path)

    def write(self, handoff: Handoff) -> Path:
        """Write the file whole, or not at all. Raises: HandoffFailed."""
        path = self.path / codec.file_name(handoff.pool_id, handoff.replica_id)
        try:
            files.write_atomically(path, codec.encode(handoff))
        except OSError as error:
            raise HandoffFailed(
                f"cannot write {path}: {error.strerror}", path=str(path), reason=str(error)
            ) from error
        return path

    def remove(self, pool_id: str, replica_id: str) -> bool:
        """Remove a replica's file; False when there was none. Raises: HandoffFailed."""
        path = self.path / codec.file_name(pool_id, replica_id)
        try:
            return files.remove(path)
        except OSError as error:
            raise HandoffFailed(
                f"cannot remove {path}: {error.strerror}", path=str(path), reason=str(error)
            ) from error

    def scan(self) -> list[Found]:
        """Read every file of the folder; what is malformed, half-written or foreign is told, and left alone."""
        return [read(path) for path in sorted(self.path.glob("*.json"))]


def read(path: Path) -> Found:
    """Read one file."""
    try:
        decoded = codec.decode(_read_bounded(path), source=path)
    except (OSError, InvalidInput) as error:
        return Found(path=path, error=str(error))
    if decoded.unknown_fields:
        log.info("handoff_unknown_fields", path=str(path), count=decoded.unknown_fields)
    return Found(path=path, handoff=decoded.message)


class SpawnFolder:
    """`<runtime_dir>/spawns`: one file for each process that we started, or were about to."""

    def __init__(self, runtime: Path, *, now_s: Callable[[], float] = time.time) -> None:
        self.path = runtime / SPAWNS
        self._now_s = now_s

    def open(self) -> None:
        """Make the folder, and remove what interrupted writes left."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.remove_temporaries(self.path)

    def write(self, record: SpawnRecord) -> None:
        """Write the record. Raises: HandoffFailed: what cannot be recorded must not be spawned."""
        path = self.path / codec.file_name(record.pool_id, record.replica_id)
        stamped = msgspec.structs.replace(record, recorded_at=self._now_s())
        try:
            files.write_atomically(path, msgspec.json.encode(stamped))
        except OSError as error:
            raise HandoffFailed(
                f"cannot record a spawn in {path}: {error.strerror}", path=str(path), reason=str(error)
            ) from error

    def remove(self, pool_id: str, replica_id: str) -> None:
        """Forget a process that is gone. Raises: HandoffFailed."""
        path = self.path / codec.file_name(pool_id, replica_id)
        try:
            files.remove(path)
        except OSError as error:
            raise HandoffFailed(
                f"cannot remove {path}: {error.strerror}", path=str(path), reason=str(error)
            ) from error

    def scan(self) -> list[SpawnRecord]:
        """Return every record; one that cannot be read is logged and left."""
        found = []
        for path in sorted(self.path.glob("*.json")):
            try:
                found.append(msgspec.json.decode(_read_bounded(path), type=SpawnRecord))
            except (OSError, msgspec.DecodeError) as error:
                log.warning("spawn_record_unreadable", path=str(path), error=str(error))
        return found


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(codec.BYTES_MAX + 1)
