"""What it takes to have an engine on this machine: a pure function from a declaration and facts to steps."""

import hashlib
import json
from pathlib import Path

import msgspec

from skep.errors.provision import EngineNotFound, StepForbidden, ToolsMissing
from skep.spec.engine import EngineKind, EngineSpec, EngineWay

KEY_HEX = 16

INSTALL_HINTS: dict[str, str] = {
    "git": "sudo apt-get install git",
    "cmake": "sudo apt-get install cmake",
    "make": "sudo apt-get install make",
    "c++": "sudo apt-get install g++",
    "cc": "sudo apt-get install gcc",
    "nvcc": "sudo apt-get install nvidia-cuda-toolkit",
    "hipcc": "sudo apt-get install hipcc",
    "glslc": "sudo apt-get install glslc",
    "python3": "sudo apt-get install python3-venv",
}
# A CMake option that switches a device backend on, and the compiler that it then needs.
FLAG_TOOLS: dict[str, str] = {"GGML_CUDA=ON": "nvcc", "GGML_HIP=ON": "hipcc", "GGML_VULKAN=ON": "glslc"}
RELOCATABLE = ("-DCMAKE_BUILD_RPATH_USE_ORIGIN=ON", "-DCMAKE_RUNTIME_OUTPUT_DIRECTORY=bin")


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What was read off the machine for one engine. `tools` maps each program that was found to its path.

    `commit` is what `ref` meant at its repository just now; `toolchain` names compilers and their versions;
    `published` says that the key's folder holds a whole engine already.
    """

    tools: dict[str, str]
    commit: str = ""
    toolchain: str = ""
    platform: str = ""
    cores: int = 1
    published: bool = False


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step. `argv` is run in `folder`; a step without one is done by us. `permission` is what it needs allowed."""

    name: str
    detail: str
    permission: str = ""
    argv: tuple[str, ...] = ()
    folder: str = ""
    limit_s: float = 600.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How an engine comes to its folder. No steps: it is there already, at `program`."""

    engine_id: str
    key: str
    folder: str
    staging: str
    program: str
    steps: tuple[Step, ...]


def key_of(engine: EngineSpec, *, commit: str, toolchain: str, platform: str) -> str:
    """Return the identity of what would be installed: equal keys are interchangeable."""
    what = {
        EngineWay.EXTERNAL: [engine.executable],
        EngineWay.PACKAGE: [engine.package, platform],
        EngineWay.BINARY: [engine.sha256],
        EngineWay.SOURCE: [engine.repo, commit, sorted(engine.flags), toolchain],
    }[engine.way]
    text = json.dumps([engine.kind, engine.way, what], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_HEX]


def tools_needed(engine: EngineSpec) -> list[str]:
    """Return the programs that the steps will start."""
    match engine.way:
        case EngineWay.SOURCE:
            return [
                "git",
                "cmake",
                "make",
                "cc",
                "c++",
                *(tool for flag, tool in FLAG_TOOLS.items() if _has(engine, flag)),
            ]
        case EngineWay.PACKAGE:
            return ["python3"]
        case _:
            return []


def _has(engine: EngineSpec, flag: str) -> bool:
    return any(given.removeprefix("-D").upper() == flag for given in engine.flags)


def plan(engine: EngineSpec, facts: Facts, *, root: Path, allow: frozenset[str]) -> Plan:
    """Return the steps that bring `engine` below `root`.

    Raises: ToolsMissing (all of them at once), StepForbidden, EngineNotFound.
    """
    if engine.kind is EngineKind.SKEP:
        return Plan(engine_id=engine.id, key="skep", folder="", staging="", program="skep", steps=())
    if engine.way is EngineWay.EXTERNAL:
        return _external(engine, facts)
    key = key_of(engine, commit=facts.commit, toolchain=facts.toolchain, platform=facts.platform)
    folder = root / engine.kind / key
    # A virtual environment's scripts name its path, so a package is made where it stays; the manifest publishes it.
    staging = folder if engine.way is EngineWay.PACKAGE else root / engine.kind / f".staging-{key}"
    program = _program_below(engine, folder)
    steps = () if facts.published else _steps(engine, facts, staging)
    _check(engine, facts, steps, allow)
    return Plan(
        engine_id=engine.id,
        key=key,
        folder=str(folder),
        staging=str(staging),
        program=str(program),
        steps=steps,
    )


def _external(engine: EngineSpec, facts: Facts) -> Plan:
    program = facts.tools.get(engine.executable)
    if program is None:
        raise EngineNotFound(
            f"engine {engine.id!r}: {engine.executable} is not on PATH: install it, or declare another way to get it",
            engine_id=engine.id,
            program=engine.executable,
        )
    key = key_of(engine, commit="", toolchain="", platform="")
    return Plan(engine_id=engine.id, key=key, folder="", staging="", program=program, steps=())


def _program_below(engine: EngineSpec, folder: Path) -> Path:
    inner = {EngineWay.PACKAGE: "venv/bin", EngineWay.SOURCE: "build/bin", EngineWay.BINARY: "files"}[
        engine.way
    ]
    return folder / inner / engine.executable


def _steps(engine: EngineSpec, facts: Facts, staging: Path) -> tuple[Step, ...]:
    match engine.way:
        case EngineWay.BINARY:
            return (
                Step(name="download", detail=engine.url, permission="download"),
                Step(name="unpack", detail="into the staging folder"),
            )
        case EngineWay.PACKAGE:
            python = facts.tools.get("python3", "python3")
            venv = str(staging / "venv")
            return (
                Step(name="venv", detail=venv, permission="package", argv=(python, "-m", "venv", venv)),
                Step(
                    name="install",
                    detail=engine.package,
                    permission="package",
                    argv=(f"{venv}/bin/python", "-m", "pip", "install", "--no-input", "--", engine.package),
                    limit_s=3600,
                ),
            )
        case _:
            return _build_steps(engine, facts, staging)


def _build_steps(engine: EngineSpec, facts: Facts, staging: Path) -> tuple[Step, ...]:
    source, build = str(staging / "source"), str(staging / "build")
    flags = tuple(f"-D{flag.removeprefix('-D')}" for flag in engine.flags)
    return (
        Step(name="init", detail=engine.repo, permission="download", argv=("git", "init", "-q", source)),
        Step(
            name="fetch",
            detail=f"{engine.ref} ({facts.commit[:12]})",
            permission="download",
            argv=(
                "git",
                "-C",
                source,
                "fetch",
                "-q",
                "--depth",
                "1",
                "--",
                engine.repo,
                facts.commit or engine.ref,
            ),
            limit_s=1800,
        ),
        Step(
            name="checkout",
            detail=facts.commit[:12],
            argv=("git", "-C", source, "checkout", "-q", "FETCH_HEAD"),
        ),
        Step(
            name="configure",
            detail=" ".join(flags) or "no options",
            permission="build",
            # Relative run paths: the build is renamed into place afterwards.
            argv=("cmake", "-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Release", *RELOCATABLE, *flags),
        ),
        Step(
            name="compile",
            detail=engine.executable,
            permission="build",
            argv=(
                "cmake",
                "--build",
                build,
                "--config",
                "Release",
                "--target",
                engine.executable,
                # A number, always: without one, make starts as many compilers as there are files.
                "--parallel",
                str(facts.cores),
            ),
            limit_s=7200,
        ),
    )


def _check(engine: EngineSpec, facts: Facts, steps: tuple[Step, ...], allow: frozenset[str]) -> None:
    for step in steps:
        if step.permission and step.permission not in allow:
            raise StepForbidden(
                f"engine {engine.id!r} needs {step.permission!r} ({step.name} {step.detail}), "
                f"which [provisioning] allow does not list",
                engine_id=engine.id,
                step=step.name,
                permission=step.permission,
            )
    missing = [tool for tool in tools_needed(engine) if tool not in facts.tools] if steps else []
    if missing:
        hints = "; ".join(f"{tool}: {INSTALL_HINTS.get(tool, f'install {tool}')}" for tool in missing)
        raise ToolsMissing(f"engine {engine.id!r} needs programs that are not here. {hints}", missing=missing)
