"""A folder of wheels as one file that can be sent."""

import hashlib
import os
import secrets
import tarfile
from pathlib import Path

from skep.errors.rollout import ArtifactMissing
from skep.provision.digest import file_sha256

NAME_HEX = 12


def packed(folder: Path, cache: Path) -> Path:
    """Return a tar of the folder's wheels: the same bytes for the same wheels, whenever and wherever it is made.

    Raises: ArtifactMissing.
    """
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise ArtifactMissing(
            f"{folder} holds no wheel. Fill it with: pip wheel -w {folder} skep", path=str(folder)
        )
    cache.mkdir(parents=True, exist_ok=True)
    names = "\n".join(f"{wheel.name} {file_sha256(wheel)}" for wheel in wheels)
    target = cache / f"wheelhouse-{hashlib.sha256(names.encode()).hexdigest()[:NAME_HEX]}.tar"
    if not target.exists():
        temporary = target.with_suffix(f".{secrets.token_hex(4)}.new")
        with tarfile.open(temporary, "w") as tar:
            for wheel in wheels:
                tar.add(wheel, wheel.name, filter=_plain)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())  # It is trusted by its name from now on, after a power cut too.
        temporary.rename(target)
    return target


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime = member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member
