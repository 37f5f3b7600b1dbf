"""Engines: programs that can serve a model, and the ways in which a machine gets one."""

import re
from enum import StrEnum

import msgspec

from skep.errors import InvalidConfig
from skep.errors.provision import ContainerUnsupported

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class EngineKind(StrEnum):
    """Which program serves."""

    SKEP = "skep"
    LLAMA_SERVER = "llama-server"
    VLLM = "vllm"
    COMMAND = "command"


class EngineWay(StrEnum):
    """How the program comes to the machine."""

    EXTERNAL = "external"
    PACKAGE = "package"
    BINARY = "binary"
    SOURCE = "source"
    CONTAINER = "container"  # Known, and refused: engines run as processes here.


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[engine]]` of skep.toml.

    `package` is a pip requirement (`vllm==0.11.0`); `repo`, `ref` and `flags` (CMake options) belong to `source`;
    `url` and `sha256` to `binary`; `argv` is what starts a `command` engine, with `{port}`, `{model}` and `{name}`, and
    what `llama-server` and `vllm` are given beyond what the pool says.
    `program` is the executable's name, looked up on PATH, in the package, the archive or the build.
    """

    id: str
    kind: EngineKind = EngineKind.SKEP
    way: EngineWay = EngineWay.EXTERNAL
    program: str = ""
    package: str = ""
    repo: str = ""
    ref: str = ""
    flags: tuple[str, ...] = ()
    url: str = ""
    sha256: str = ""
    argv: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises: InvalidConfig (through msgspec's ValidationError when decoding) for a contradiction."""
        if self.way is EngineWay.CONTAINER:
            ways = ", ".join(one for one in EngineWay if one is not EngineWay.CONTAINER)
            raise ContainerUnsupported(
                f"engine {self.id!r}: way 'container' is not supported, engines run as processes: use {ways}",
                engine_id=self.id,
            )
        if found := violations(self):
            raise InvalidConfig(
                f"engine {self.id!r}: {'; '.join(found)}", engine_id=self.id, violations=found
            )

    @property
    def executable(self) -> str:
        """The program's file name."""
        if self.program:
            return self.program
        if self.kind is EngineKind.COMMAND and self.argv:
            return self.argv[0]
        return str(self.kind)


_NEEDS: dict[EngineWay, tuple[str, ...]] = {
    EngineWay.EXTERNAL: (),
    EngineWay.PACKAGE: ("package",),
    EngineWay.BINARY: ("url", "sha256"),
    EngineWay.SOURCE: ("repo", "ref"),
}


def violations(engine: EngineSpec) -> list[str]:
    """Return what contradicts itself in an engine's declaration; empty when all is well."""
    found = [] if _ID.fullmatch(engine.id) else ["id must be letters, digits, '.', '_' or '-', at most 64"]
    found += [f"way {engine.way!s} needs {name}" for name in _NEEDS[engine.way] if not getattr(engine, name)]
    if engine.kind is EngineKind.COMMAND and not engine.argv:
        found.append("kind command needs argv")
    if engine.kind is EngineKind.SKEP and engine.argv:
        found.append("kind skep takes no argv: its pool says it all")
    if engine.sha256 and not _SHA256.fullmatch(engine.sha256):
        found.append("sha256 must be 64 lower-case hex digits")
    if engine.url and not engine.url.startswith(
        ("https://", "http://127.0.0.1", "http://localhost", "file:")
    ):
        found.append("url must be https:// (http only on loopback)")
    if engine.repo.startswith("-") or engine.ref.startswith("-") or engine.package.startswith("-"):
        found.append("repo, ref and package must not start with '-'")
    if "/" in engine.program:
        found.append("program is a file name, not a path")
    return found
