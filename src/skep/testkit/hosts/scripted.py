"""Hosts that are nothing but answers: no process, no file, no network. They understand rollout's own scripts, and no others.

What a script would do is read from its text: which steps it has, which version it switches to, which manifest it writes. A
script that rollout never sends is a failure. `faults` says which step fails, and with what output.
"""

import re
import shlex
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from skep.errors import InternalFault
from skep.errors.rollout import ConnectionLost, HostUnreachable, LoginRefused
from skep.rollout import layout
from skep.rollout.plan import NEEDED_TOOLS
from skep.rollout.recipes import BIN_LINK
from skep.rollout.steps import EXIT_CHANGED, EXIT_STEP_FAILED
from skep.rollout.transport import OnLine, Result
from skep.spec.host import HiveHost, Install


class ScriptedHost:
    """One host's state, and what goes wrong there. `cut_at` is the step at which the connection drops, once."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.scripts: list[str] = []
        self.faults: dict[str, str] = {}
        self.cut_at = ""
        self.login_noise = ""
        self.is_reachable, self.is_welcome, self.is_writable = True, True, True
        self.tools = {"git", "curl", *(tool for tool, _ in NEEDED_TOOLS)}
        self.free_kib, self.time_s, self.uname = 10_000_000, 1_700_000_000, "Linux x86_64"
        self.libc, self.pythons = "glibc 2.36", {"3.11": "/usr/bin/python3.11"}
        self.gpus: set[str] = set()
        self.versions: set[str] = set()
        self.workers: set[str] = set()
        self.current = self.link = self.manifest = ""

    def hive(self, install: Install, **declared: Any) -> HiveHost:
        """Return this host's `[[hive]]` declaration."""
        return HiveHost(
            alias=self.alias, hostname=f"{self.alias}.example", ssh_user="lab", install=install, **declared
        )

    async def aclose(self) -> None:
        """Take the host away."""
        self.is_reachable = False

    def facts(self, nonce: str) -> str:
        """Return what the probe says here."""
        rows = [
            *(("home", "/home/lab"), ("uname", self.uname), ("time", self.time_s), ("uid", 1000)),
            *(("tool", tool) for tool in sorted(self.tools)),
            *(("python", f"{version}\t{path}") for version, path in self.pythons.items()),
            *(("libc", self.libc), ("df", f"/dev/vda 9 9 {self.free_kib} 1% /")),
            ("writable", "yes" if self.is_writable else "no"),
            *(("current", self.current and f"versions/{self.current}"), ("link", self.link)),
            *(("version", key) for key in sorted(self.versions)),
            *(("worker", slug) for slug in sorted(self.workers)),
            *([("manifest", self.manifest)] if self.manifest else []),
            *(("systemd_user", "no"), ("service", "stopped")),
            *(("gpu", gpu) for gpu in sorted(self.gpus)),
        ]
        body = "".join(f"{name}\t{value}\n" for name, value in rows)
        return f"{self.login_noise}\n{nonce} begin\n{body}{nonce} end\n"

    def does(self, name: str, script: str) -> None:
        """Change as the step would change a host."""
        words = shlex.split(script)
        if name == "verify":
            self.versions.add(_key(words))
        elif name == "switch":
            self.current, self.link = _key(words, before=layout.CURRENT), BIN_LINK
        elif name == "engines":
            notes = (word.rstrip(";") for word in words if word.startswith(f"{layout.WORKERS}/"))
            self.workers |= {Path(note).name for note in notes if not note.endswith(".new")}
        elif name.startswith("remove-"):
            self.workers.discard(name.removeprefix("remove-"))
        elif name == "record":
            self.manifest = next(word for word in words if word.startswith("{"))
        elif name == "prune":
            self.versions -= {Path(word).name for word in words if word.startswith(layout.VERSIONS)}
        elif name == "uninstall":
            self.versions, self.workers, self.current, self.link, self.manifest = set(), set(), "", "", ""


def _key(words: list[str], before: str = "") -> str:
    """Return the version that a script names; with `before`, the one whose link that is."""
    if before:
        return Path(words[words.index(f"{before}.new") - 1]).name
    return next(word.split("/")[4] for word in words if word.startswith(f"{layout.VERSIONS}/"))


class ScriptedHostTransport:
    """See `Transport`. Raises also: InternalFault for a script that rollout never sends."""

    def __init__(self, host: ScriptedHost) -> None:
        self._host = host

    async def run(
        self,
        script: str,
        *,
        limit_s: float,  # noqa: ARG002 - nothing takes time here
        on_line: OnLine | None = None,
        is_brief: bool = False,
    ) -> Result:
        """See `Transport.run`."""
        host = self._host
        host.scripts.append(script)
        if is_brief:
            return Result(0, host.facts(_nonce(script)), "")
        if script.endswith("--version </dev/null"):
            return Result(0 if host.current and "verify" not in host.faults else 127, "", "")
        if on_line is None or "flock" not in script:
            raise InternalFault(f"unexpected script: {script[:200]!r}", script=script)
        return self._apply(script, on_line)

    def _apply(self, script: str, tell: OnLine) -> Result:
        host, nonce = self._host, _nonce(script)
        expected = shlex.split(script.partition('[ "$m" = ')[2].partition("\n")[0])[0]
        if expected != host.manifest:
            tell(f"{nonce} changed")
            return Result(EXIT_CHANGED, "", "")
        for name, text in _steps(script):
            tell(f"{nonce} begin {name}")
            if name == host.cut_at:
                host.cut_at = ""
                raise ConnectionLost(f"{host.alias}: cut at {name}", alias=host.alias)
            if fault := host.faults.get(name):
                tell(fault)
                tell(f"{nonce} failed {name} 1")
                return Result(EXIT_STEP_FAILED, "", "")
            host.does(name, text)
            tell(f"{nonce} done {name}")
        return Result(0, "", "")

    async def aclose(self) -> None:
        """See `Transport.aclose`."""


def _nonce(script: str) -> str:
    found = re.match(r"N='?([0-9a-f]{16})'?\n", script)
    if found is None:
        raise InternalFault(f"unexpected script: {script[:200]!r}", script=script)
    return found[1]


def _steps(script: str) -> list[tuple[str, str]]:
    """Return the uploads and steps of a rendered script, in order."""
    body = script.partition('echo "$N done $1"\n}\n')[2]
    words = shlex.split(re.sub(r"take\(\) \{.*?\n\}\n", "", body, flags=re.DOTALL))
    found = []
    for at, word in enumerate(words):
        if word == "take":
            found.append(("send", ""))
        elif word == "run":
            found.append((words[at + 1], words[at + 2]))
    return found


class ScriptedLab:
    """N such hosts; `connect` is what rollout reaches them by. Use with `async with`, as any lab."""

    def __init__(self, folder: Path, hosts: int = 3) -> None:
        self.folder = folder
        self.identity, self.known_hosts = folder / "id_lab", folder / "known_hosts"
        self.hosts = [ScriptedHost(f"host-{number}") for number in range(hosts)]

    async def connect(self, host: HiveHost) -> ScriptedHostTransport:
        """See `Connector.connect`."""
        mine = next(one for one in self.hosts if one.alias == host.alias)
        if not mine.is_reachable:
            raise HostUnreachable(f"{host.alias}: no connection", alias=host.alias)
        if not mine.is_welcome:
            raise LoginRefused(f"{host.alias}: login refused", alias=host.alias)
        return ScriptedHostTransport(mine)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing was started."""
