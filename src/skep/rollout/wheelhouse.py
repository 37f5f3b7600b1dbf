"""What is sent to hosts without a network, brought here first: releases, and wheels for the platform of the host.

Imported only where something is brought: a run that changes nothing starts without it.
"""

import asyncio
import importlib.machinery
import importlib.util
import os
import platform
import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from skep.errors.provision import BuildFailed, ToolsMissing
from skep.errors.rollout import NoWheelFits
from skep.provision.command import log_tail, run_logged
from skep.provision.digest import file_sha256
from skep.provision.lock import locked
from skep.rollout.artifact import KEY_HEX, Artifact, ArtifactKind
from skep.rollout.packing import packed
from skep.rollout.target import Target, markers, platforms, target_of

BUILD_S_MAX = 1800.0
COMPLETE = ".complete"
QUIETLY = ("--no-input", "--disable-pip-version-check", "-q")
PIP_WHEEL = (sys.executable, "-m", "pip", "wheel", *QUIETLY)
INSTEAD = "on a machine of that kind run `pip wheel -w FOLDER .` in the checkout, and set install.local.path to the folder"
_UNFIT = re.compile(
    r"No matching distribution found for (?P<needed>[^\n]+)|(?P<wheel>\S+\.whl) is not a supported wheel"
)
_UNREACHED = "Retrying (Retry("


async def bring(artifact: Artifact, *, target: Target | None, cache: Path) -> Artifact:
    """Bring what is sent: a release downloaded, a repository's wheel built, and the wheels that it needs on a `target`.

    Raises: BuildFailed, NoWheelFits, ToolsMissing, DownloadFailed, ChecksumMismatch, NoSpace, LockTimedOut, StepTimedOut.
    """
    if artifact.url:
        from skep.provision.download import Want, download  # An HTTP client, which building needs not.

        kept = cache / artifact.sha256[:KEY_HEX] / artifact.name
        file = await download(Want(url=artifact.url, target=kept, sha256=artifact.sha256))
        artifact = msgspec.structs.replace(artifact, file=str(file), url="")
    if not artifact.is_gathered or target is None:
        return artifact
    tar = await _gathered(artifact, target, cache)
    return msgspec.structs.replace(
        artifact,
        kind=ArtifactKind.WHEELHOUSE,
        name=tar.name,
        sha256=await asyncio.to_thread(file_sha256, tar),
        file=str(tar),
    )


def this_machine() -> Target | None:
    """Return the controller's own kind; nothing where it cannot be told."""
    libc = "musl" if "musl" in importlib.machinery.EXTENSION_SUFFIXES[0] else ""
    with suppress(ValueError, OSError):
        libc = os.confstr("CS_GNU_LIBC_VERSION") or libc
    python = f"{sys.version_info.major}.{sys.version_info.minor}{sys.abiflags}"
    try:
        return target_of(kernel=platform.system(), machine=platform.machine(), libc=libc, python=python)
    except ValueError:
        return None


async def _gathered(artifact: Artifact, target: Target, cache: Path) -> Path:
    """Return a tar of the wheel and all that it needs on `target`; gathered once, then kept."""
    if importlib.util.find_spec("pip") is None:
        raise ToolsMissing(
            f'install.via = "controller" needs pip beside skep: {sys.executable} -m ensurepip, or uv pip install pip',
            missing=["pip"],
        )
    mine = this_machine()
    is_mine = mine is not None and mine.serves(target)
    target = mine if mine is not None and is_mine else target
    house = cache / f"{artifact.key}-{target.slug}"
    async with locked(cache / f".{house.name}.lock"):
        if not (house / COMPLETE).exists():
            wheel = Path(artifact.file) if artifact.file else await _built(artifact, cache)
            shutil.rmtree(house, ignore_errors=True)
            log = cache / f"{house.name}.log"
            log.unlink(missing_ok=True)
            if is_mine:
                # By `wheel`, not `download`: here, what has no wheel can be built.
                argv = (*PIP_WHEEL, "-w", str(house), "--", str(wheel))
                await run_logged(argv, name="gather the wheels", log=log, limit_s=BUILD_S_MAX)
            elif artifact.repo and not wheel.name.endswith("-none-any.whl"):
                raise _unfit(wheel.name, target, cache / f"{artifact.key}-wheel.log")
            else:
                await _download(wheel, target, house, log)
            (house / COMPLETE).touch()
        return await asyncio.to_thread(packed, house, cache)


async def _built(artifact: Artifact, cache: Path) -> Path:
    """Return the wheel of a repository's commit alone, without what it needs; built once, for every platform."""
    folder = cache / f"{artifact.key}-wheel"
    async with locked(cache / f".{folder.name}.lock"):
        if not (folder / COMPLETE).exists():
            checkout, log = cache / f"{artifact.key}.src", cache / f"{folder.name}.log"
            for left in (checkout, folder):
                shutil.rmtree(left, ignore_errors=True)
            log.unlink(missing_ok=True)
            checkout.mkdir(parents=True)
            git = ("git", "-C", str(checkout))
            # By git itself: pip's own git+ addresses know neither git@host:path nor blanks.
            for name, argv in (
                ("prepare", ("git", "init", "-q", str(checkout))),
                ("clone", (*git, "fetch", "-q", "--depth", "1", "--", artifact.repo, artifact.commit)),
                ("check out", (*git, "checkout", "-q", "FETCH_HEAD")),
                ("build the wheel", (*PIP_WHEEL, "--no-deps", "-w", str(folder), "--", str(checkout))),
            ):
                await run_logged(argv, name=name, log=log, limit_s=BUILD_S_MAX)
            shutil.rmtree(checkout)
            (folder / COMPLETE).touch()
    return next(folder.glob("*.whl"))


async def _download(wheel: Path, target: Target, house: Path, log: Path) -> None:
    """Fill a folder for another platform, where nothing can be built. Raises: NoWheelFits, BuildFailed."""
    argv = download_argv(wheel, target, house)
    try:
        await run_logged(argv, name="gather the wheels", log=log, limit_s=BUILD_S_MAX)
    except BuildFailed as error:
        found = _UNFIT.search(error.log_tail)
        if found is None or _UNREACHED in error.log_tail:
            raise
        raise _unfit(found["needed"] or found["wheel"], target, log) from error


def _unfit(package: str, target: Target, log: Path) -> NoWheelFits:
    return NoWheelFits(
        f"no wheel of {package} fits {target}, and none can be built for it here: {INSTEAD} (log {log})",
        package=package,
        target=target.slug,
        log=str(log),
        log_tail=log_tail(log),
    )


def download_argv(wheel: Path, target: Target, house: Path) -> tuple[str, ...]:
    """Return the command that gathers a wheel and all that it needs for another platform."""
    abi = f"cp{target.python.replace('.', '')}"
    return (
        *(sys.executable, "-m", "skep.rollout.foreign_pip", msgspec.json.encode(markers(target)).decode()),
        *("download", *QUIETLY, "-d", str(house), "--only-binary=:all:", "--implementation", "cp"),
        *("--python-version", target.python, "--abi", abi, "--abi", "abi3", "--abi", "none"),
        *(word for name in platforms(target) for word in ("--platform", name)),
        *("--", str(wheel)),
    )
