"""Engines brought to their folders: the plan performed, resumed where it stopped, and the same when run again."""

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from skep.errors.provision import BadReference, EngineNotFound, ProgramBroken
from skep.provision.command import output_of, run_logged
from skep.provision.download import Want, download
from skep.provision.facts import gather
from skep.provision.files import sync_folder
from skep.provision.lock import locked
from skep.provision.plan import Plan, Step, key_of, plan
from skep.provision.progress import OnProgress, Progress, silent
from skep.provision.unpack import unpack
from skep.spec.engine import EngineKind, EngineSpec, EngineWay

MANIFEST = "engine.json"
ALLOW_ALL = frozenset({"download", "build", "package"})
VERSION_LINE_CHARS_MAX = 120


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """An engine that is here. `program` is what to start; `key` names the build that it came from.

    `declaration` identifies what asked for it (repository, ref and flags, before the ref was looked up).
    """

    id: str
    kind: EngineKind
    way: EngineWay
    key: str
    program: str
    version: str
    installed_at_s: float = 0.0
    declaration: str = ""


async def ensure(
    engine: EngineSpec,
    *,
    root: Path,
    allow: frozenset[str] = ALLOW_ALL,
    on_progress: OnProgress = silent,
    now_s: Callable[[], float] = time.time,
) -> Engine:
    """Bring `engine` below `root` unless it is there, and return it.

    Two callers of one key wait for each other, of different keys do not. An interrupted run leaves a staging folder
    that nobody reads; the next run starts the step anew, downloads resume.
    Raises: everything in `skep.errors.provision`.
    """
    if engine.kind is EngineKind.SKEP or engine.way is EngineWay.EXTERNAL:
        return await _found(engine, root, allow)
    try:
        facts = await gather(engine)
    except BadReference:
        # A machine that boots without its network still has what it built before.
        if known := _built_before(engine, root):
            on_progress(
                Progress(step="offline", detail=f"{engine.repo} does not answer: {engine.id} as built before")
            )
            return known
        raise
    key = key_of(engine, commit=facts.commit, toolchain=facts.toolchain, platform=facts.platform)
    folder = root / engine.kind / key
    if present := read_manifest(folder):
        return present
    # Planned before the lock, so that what is missing or forbidden is told at once.
    steps = plan(engine, facts, root=root, allow=allow)
    waiting = Progress(step="wait", detail=f"another process is preparing {engine.id}")
    async with locked(root / engine.kind / f".{key}.lock", on_wait=lambda: on_progress(waiting)):
        if present := read_manifest(folder):
            return present
        await _perform(engine, steps, root, on_progress)
        return await _publish(engine, steps, now_s())


async def planned(engine: EngineSpec, *, root: Path, allow: frozenset[str] = ALLOW_ALL) -> Plan:
    """Return what `ensure` would do, and do none of it. Raises: as `plan`, BadReference."""
    facts = await gather(engine)
    if engine.kind is not EngineKind.SKEP and engine.way is not EngineWay.EXTERNAL:
        key = key_of(engine, commit=facts.commit, toolchain=facts.toolchain, platform=facts.platform)
        facts = msgspec.structs.replace(facts, published=read_manifest(root / engine.kind / key) is not None)
    return plan(engine, facts, root=root, allow=allow)


def read_manifest(folder: Path) -> Engine | None:
    """Return the whole engine in `folder`, or None. Raises: ProgramBroken when its manifest cannot be read."""
    path = folder / MANIFEST
    try:
        return msgspec.json.decode(path.read_bytes(), type=Engine)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise ProgramBroken(f"{path} is damaged: remove {folder} and run it again", path=str(path)) from error


def list_engines(root: Path) -> list[Engine]:
    """Return every engine below `root`, newest first."""
    found = [engine for path in root.glob(f"*/*/{MANIFEST}") if (engine := read_manifest(path.parent))]
    return sorted(found, key=lambda engine: -engine.installed_at_s)


def declaration_of(engine: EngineSpec) -> str:
    """Return the identity of a declaration, whatever its ref means today."""
    return key_of(engine, commit=engine.ref, toolchain="", platform="")


def _built_before(engine: EngineSpec, root: Path) -> Engine | None:
    wanted = declaration_of(engine)
    return next((one for one in list_engines(root) if one.declaration == wanted), None)


async def _found(engine: EngineSpec, root: Path, allow: frozenset[str]) -> Engine:
    steps = plan(engine, await gather(engine), root=root, allow=allow)
    version = "" if engine.kind is EngineKind.SKEP else await _version(engine, steps.program)
    return Engine(
        id=engine.id, kind=engine.kind, way=engine.way, key=steps.key, program=steps.program, version=version
    )


async def _perform(engine: EngineSpec, steps: Plan, root: Path, on_progress: OnProgress) -> None:
    staging = Path(steps.staging)
    log = root / engine.kind / f"{steps.key}.log"
    if staging.exists():
        await asyncio.to_thread(shutil.rmtree, staging)
    staging.mkdir(parents=True)
    for number, step in enumerate(steps.steps, 1):
        on_progress(Progress(step=step.name, detail=f"{step.detail} ({number}/{len(steps.steps)})"))
        await _step(engine, step, staging, log, on_progress)


async def _step(engine: EngineSpec, step: Step, staging: Path, log: Path, on_progress: OnProgress) -> None:
    # The archive stands beside the staging folder: an interrupted download is resumed, a staging folder is not.
    archive = staging.with_name(f"{engine.sha256[:16]}.archive")
    if step.argv:
        await run_logged(step.argv, name=f"{engine.id}: {step.name}", log=log, limit_s=step.limit_s)
    elif step.name == "download":
        await download(Want(url=engine.url, target=archive, sha256=engine.sha256), on_progress=on_progress)
    else:
        await asyncio.to_thread(unpack, archive, staging / "files", program=engine.executable)
        archive.unlink()


async def _publish(engine: EngineSpec, steps: Plan, now_s: float) -> Engine:
    staging, folder = Path(steps.staging), Path(steps.folder)
    staged = staging / Path(steps.program).relative_to(folder)
    version = await _version(engine, str(staged))
    result = Engine(
        id=engine.id,
        kind=engine.kind,
        way=engine.way,
        key=steps.key,
        program=steps.program,
        version=version,
        installed_at_s=now_s,
        declaration=declaration_of(engine),
    )
    temporary = staging / f"{MANIFEST}.new"
    with temporary.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(result)))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(staging / MANIFEST)
    if staging != folder:
        if folder.exists():  # Without a manifest: what an older, interrupted way of working left.
            await asyncio.to_thread(shutil.rmtree, folder)
        staging.rename(folder)
    sync_folder(folder.parent)
    return result


async def _version(engine: EngineSpec, program: str) -> str:
    """Return the first line of `--version`. Raises: EngineNotFound, ProgramBroken."""
    if not os.access(program, os.X_OK):
        raise EngineNotFound(
            f"engine {engine.id!r}: no executable {program}", engine_id=engine.id, program=program
        )
    if engine.kind is EngineKind.COMMAND:
        return ""  # Anybody's program: it need not know --version, its pool's readiness proves it.
    code, text = await output_of([program, "--version"])
    if code != 0:
        raise ProgramBroken(
            f"engine {engine.id!r}: {program} --version ended with {code}: {text.strip()[-300:]}",
            engine_id=engine.id,
            exit_code=code,
        )
    return next((line for line in text.splitlines() if line.strip()), "").strip()[:VERSION_LINE_CHARS_MAX]
