"""What is to be installed, looked at on the controller: its identity, and the files to send."""

import asyncio
from enum import StrEnum
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import msgspec

from skep.errors.rollout import ArtifactMissing
from skep.provision.digest import file_sha256
from skep.provision.facts import commit_of
from skep.spec.host import Install

KEY_HEX = 12


class ArtifactKind(StrEnum):
    """How an artifact becomes a version's folder on the host."""

    WHEEL = "wheel"
    WHEELHOUSE = "wheelhouse"
    ARCHIVE = "archive"
    BINARY = "binary"
    GIT = "git"


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to install. `key` names its folder on the host; equal keys are the same bytes or the same commit.

    `file` (with its `sha256` and `name`) is sent from here when set; else the host gets it from `url` or `repo`.
    `is_gathered`: it and all it needs are brought here first, as wheels for the host that takes them (`wheelhouse`).
    """

    key: str
    kind: ArtifactKind
    source: str
    name: str = ""
    sha256: str = ""
    file: str = ""
    url: str = ""
    repo: str = ""
    commit: str = ""
    is_gathered: bool = False


async def resolve(install: Install, *, base: Path, cache: Path) -> Artifact:
    """Look at what an `install` names. `base` is skep.toml's folder, `cache` a folder of ours on this machine.

    Nothing is built or downloaded: what has to be, for `via = "controller"`, is `wheelhouse.bring`'s, and only for a host
    that lacks it. Raises: ArtifactMissing, BadReference (the repository or the ref).
    """
    is_sent = install.via == "controller"
    if install.local is not None:
        path = base / Path(install.local.path).expanduser()
        return await asyncio.to_thread(_local, path, cache, is_sent=is_sent)
    if install.release is not None:
        url, sha256 = install.release.url, install.release.sha256
        name = PurePosixPath(urlsplit(url).path).name
        kind = _kind(name)
        return Artifact(
            key=f"{_stem(name)}-{sha256[:KEY_HEX]}",
            kind=kind,
            source=url,
            name=name,
            sha256=sha256,
            url=url,
            is_gathered=is_sent and kind is ArtifactKind.WHEEL,
        )
    assert install.git is not None
    repo, ref = install.git.repo, install.git.ref
    commit = await commit_of(repo, ref)
    return Artifact(
        key=f"git-{commit[:KEY_HEX]}",
        kind=ArtifactKind.WHEELHOUSE if is_sent else ArtifactKind.GIT,
        source=f"{repo}@{ref}",
        repo=repo,
        commit=commit,
        is_gathered=is_sent,
    )


def _local(path: Path, cache: Path, *, is_sent: bool) -> Artifact:
    if not path.exists():
        raise ArtifactMissing(
            f"{path}: there is nothing to install. Check install.local.path", path=str(path)
        )
    source, stem = str(path), _stem(path.name)
    kind = _kind(path.name)
    if path.is_dir():
        from skep.rollout.packing import (
            packed,
        )  # A tar's reader and writer: no part of other installs' start.

        path, kind = packed(path, cache), ArtifactKind.WHEELHOUSE
    digest = file_sha256(path)
    return Artifact(
        key=f"{stem}-{digest[:KEY_HEX]}",
        kind=kind,
        source=source,
        name=path.name,
        sha256=digest,
        file=str(path),
        is_gathered=is_sent and kind is ArtifactKind.WHEEL,
    )


def _kind(name: str) -> ArtifactKind:
    if name.endswith(".whl"):
        return ArtifactKind.WHEEL
    if name.endswith((".tar.gz", ".tgz", ".tar.xz", ".tar")):
        return ArtifactKind.ARCHIVE
    return ArtifactKind.BINARY


def _stem(name: str) -> str:
    """Return the part of a file's name that a folder can carry."""
    plain = "".join(
        char if char.isalnum() or char in "._-" else "-" for char in name.split(".whl", maxsplit=1)[0]
    )
    return plain.removesuffix(".gz").removesuffix(".tar").strip(".-")[:40] or "skep"
