"""The handoff file: how a hive tells this machine, and itself after a restart, what serves where.

`<runtime_dir>/engines/<pool>-<replica>.json`, mode 0600, written to a temporary name, fsynced and renamed. It names a
process by pid, the kernel's start time and the boot that both belong to, so that a reused pid is never taken for it.
"""

from pathlib import PurePath
from typing import Annotated

import msgspec
from msgspec import Meta

from skep.errors import InvalidInput
from skep.spec.ids import Id, check_id
from skep.wire import tolerant

VERSION = 1
BYTES_MAX = 64 * 1024
FOLDER = "engines"


class HandoffModel(msgspec.Struct, frozen=True, kw_only=True):
    """The model that the replica serves: its name, its reference as declared, the file, and the checksum if known."""

    name: str
    ref: str
    path: str
    sha256: str = ""


class Handoff(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica is and where it serves. `token` is its bearer token: the file is for its owner's eyes alone.

    `pid_started_at` counts clock ticks since the boot `boot_id`. `written_at` is seconds since the epoch.
    """

    version: Annotated[int, Meta(ge=1)]
    pool_id: Id
    replica_id: Id
    engine: str
    engine_version: str
    url: str
    pid: Annotated[int, Meta(gt=1)]
    pid_started_at: Annotated[int, Meta(ge=0)]
    nonce: str
    device_mask: tuple[str, ...]
    slots_total: Annotated[int, Meta(ge=1)]
    model: HandoffModel
    written_at: float
    boot_id: str = ""
    token: str = ""
    node_id: str = ""
    context: int = 0
    spec_digest: str = ""

    def __repr__(self) -> str:
        """Return the handoff without its token."""
        return f"Handoff({self.pool_id}-{self.replica_id} pid={self.pid} url={self.url})"


def file_name(pool_id: str, replica_id: str) -> str:
    """Return the name of a replica's handoff file. Raises: InvalidInput when an id could leave the folder."""
    return f"{check_id(pool_id, what='pool')}-{check_id(replica_id, what='replica')}.json"


def encode(handoff: Handoff) -> bytes:
    """Return the file's contents: indented JSON, for people look at it too."""
    return msgspec.json.format(msgspec.json.encode(handoff), indent=2) + b"\n"


def decode(data: bytes, *, source: PurePath | str) -> tolerant.Decoded[Handoff]:
    """Read a handoff file's contents.

    Raises: InvalidInput when it is half-written, malformed, too large, of a newer format, or names another replica
    than the file does.
    """
    if len(data) > BYTES_MAX:
        raise InvalidInput(f"{source}: {len(data)} bytes is too large for a handoff file", source=str(source))
    try:
        decoded = tolerant.decode(data, Handoff)
    except InvalidInput as error:
        raise InvalidInput(f"{source}: {error}", source=str(source)) from error
    handoff = decoded.message
    if handoff.version > VERSION:
        raise InvalidInput(
            f"{source}: handoff format {handoff.version} is newer than {VERSION}: upgrade skep here",
            source=str(source),
        )
    if PurePath(source).name != file_name(handoff.pool_id, handoff.replica_id):
        raise InvalidInput(
            f"{source}: holds the handoff of {handoff.pool_id}-{handoff.replica_id}", source=str(source)
        )
    return decoded
