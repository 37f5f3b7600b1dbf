"""What is to be installed, looked at on the controller: its identity, and the files to send."""

import asyncio
import hashlib
import shutil
import sys
import tarfile
from enum import StrEnum
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import msgspec

from skep.errors.rollout import ArtifactMissing
from skep.provision.command import run_logged
from skep.provision.digest import file_sha256
from skep.provision.facts import commit_of
from skep.provision.lock import locked
from skep.provision.progress import OnProgress, silent
from skep.spec.host import Install

KEY_HEX = 12
BUILD_S_MAX = 1800.0
PIP_WHEEL = (sys.executable, "-m", "pip", "wheel", "--no-input", "--disable-pip-version-check", "-q")


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


async def resolve(install: Install, *, base: Path, cache: Path, on_progress: OnProgress = silent) -> Artifact:
    """Look at what an `install` names. `base` is skep.toml's folder, `cache` a folder of ours on this machine.

    Raises: ArtifactMissing, BadReference (the repository or the ref), DownloadFailed, BuildFailed.
    """
    if install.local is not None:
        return await asyncio.to_thread(_local, base / Path(install.local.path).expanduser(), cache)
    if install.release is not None:
        release = install.release
        name = PurePosixPath(urlsplit(release.url).path).name
        here = ""
        if install.via == "controller":
            from skep.provision.download import Want, download  # An HTTP client: a third of a no-op's start.

            want = Want(
                url=release.url, target=cache / release.sha256[:KEY_HEX] / name, sha256=release.sha256
            )
            here = str(await download(want, on_progress=on_progress))
        key = f"{_stem(name)}-{release.sha256[:KEY_HEX]}"
        return Artifact(
            key=key,
            kind=_kind(name),
            source=release.url,
            name=name,
            sha256=release.sha256,
            file=here,
            url=release.url,
        )
    assert install.git is not None
    repo, ref = install.git.repo, install.git.ref
    commit = await commit_of(repo, ref)
    if install.via == "controller":
        return await _built_here(repo, ref, commit, cache)
    return Artifact(
        key=f"git-{commit[:KEY_HEX]}", kind=ArtifactKind.GIT, source=f"{repo}@{ref}", repo=repo, commit=commit
    )


def _local(path: Path, cache: Path) -> Artifact:
    if not path.exists():
        raise ArtifactMissing(
            f"{path}: there is nothing to install. Check install.local.path", path=str(path)
        )
    source = str(path)
    kind = _kind(path.name)
    if path.is_dir():
        path, kind = _packed(path, cache), ArtifactKind.WHEELHOUSE
    digest = file_sha256(path)
    key = f"{_stem(Path(source).name)}-{digest[:KEY_HEX]}"
    return Artifact(key=key, kind=kind, source=source, name=path.name, sha256=digest, file=str(path))


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


def _packed(folder: Path, cache: Path) -> Path:
    """Return a tar of the folder's wheels: the same bytes for the same wheels, whenever and wherever it is made."""
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise ArtifactMissing(
            f"{folder} holds no wheel. Fill it with: pip wheel -w {folder} skep", path=str(folder)
        )
    cache.mkdir(parents=True, exist_ok=True)
    names = "\n".join(f"{wheel.name} {file_sha256(wheel)}" for wheel in wheels)
    target = cache / f"wheelhouse-{hashlib.sha256(names.encode()).hexdigest()[:KEY_HEX]}.tar"
    if not target.exists():
        temporary = target.with_suffix(".new")
        with tarfile.open(temporary, "w") as tar:
            for wheel in wheels:
                tar.add(wheel, wheel.name, filter=_plain)
        temporary.rename(target)
    return target


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime = member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member


async def _built_here(repo: str, ref: str, commit: str, cache: Path) -> Artifact:
    """Build the wheel and everything it needs on the controller, for hosts without a network."""
    house = cache / f"git-{commit[:KEY_HEX]}"
    async with locked(cache / f".git-{commit[:KEY_HEX]}.lock"):
        if not (house / ".complete").exists():
            checkout, log = cache / f"git-{commit[:KEY_HEX]}.src", cache / f"git-{commit[:KEY_HEX]}.log"
            shutil.rmtree(checkout, ignore_errors=True)
            checkout.mkdir(parents=True)
            # By git itself: pip's own git+ addresses know neither git@host:path nor blanks.
            for name, argv in (
                ("prepare", ("git", "init", "-q", str(checkout))),
                ("clone", ("git", "-C", str(checkout), "fetch", "-q", "--depth", "1", "--", repo, commit)),
                ("check out", ("git", "-C", str(checkout), "checkout", "-q", "FETCH_HEAD")),
                ("build the wheel", (*PIP_WHEEL, "-w", str(house), "--", str(checkout))),
            ):
                await run_logged(argv, name=name, log=log, limit_s=BUILD_S_MAX)
            shutil.rmtree(checkout)
            (house / ".complete").touch()
    packed = await asyncio.to_thread(_packed, house, cache)
    return Artifact(
        key=f"git-{commit[:KEY_HEX]}",
        kind=ArtifactKind.WHEELHOUSE,
        source=f"{repo}@{ref}",
        name=packed.name,
        sha256=file_sha256(packed),
        file=str(packed),
        commit=commit,
    )
