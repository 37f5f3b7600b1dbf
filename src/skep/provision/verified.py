"""Files that were not fetched by their checksum, held against one: hashed once, and again when they changed."""

from pathlib import Path

import msgspec

from skep.errors.provision import ChecksumMismatch
from skep.provision.digest import file_sha256
from skep.provision.files import writing


class _Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Which state of a file had the digest."""

    path: str
    size_bytes: int
    changed_ns: int


def require_sha256(path: Path, sha256: str, *, root: Path) -> None:
    """Hash `path` unless `root` remembers this very state of it; blocking. Raises: ChecksumMismatch, NoSpace."""
    real = path.resolve()
    status = real.stat()
    now = _Seen(path=str(real), size_bytes=status.st_size, changed_ns=status.st_mtime_ns)
    note = root / "verified" / f"{sha256}.json"
    if _read(note) == now:
        return
    if (found := file_sha256(real)) != sha256:
        raise ChecksumMismatch(
            f"{path} has sha256 {found}, not {sha256}: check the file and the configuration",
            path=str(path),
            expected=sha256,
            found=found,
        )
    with writing(note):
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary = note.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(now))
        temporary.rename(note)


def _read(note: Path) -> _Seen | None:
    try:
        return msgspec.json.decode(note.read_bytes(), type=_Seen)
    except (FileNotFoundError, msgspec.DecodeError):
        return None  # Never verified, or the note was cut short: hashed again.
