"""What rollout's scenarios share: hosts of one level, what is declared for them, what goes wrong there, what came of it."""

import asyncio
import os
import stat
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from skep.rollout.plan import Options
from skep.rollout.report import HostReport, SyncReport
from skep.spec.host import HiveHost, Install, LocalInstall, WorkerDecl
from skep.testkit.hosts.loopback import LoopbackLab
from skep.testkit.hosts.scripted import ScriptedHost
from skep.testkit.rollout import RolloutHarness

PROGRAM = """#!/bin/sh
case "$1" in
  --version) [ ! -e "$HOME/refuse" ] || exit 3; echo "skep {version}";;
  engine) [ ! -e "$HOME/broken-build" ] || {{ echo "compile error at line 7" >&2; exit 1; }}; echo "kind/key";;
esac
"""
FULL = "#!/bin/sh\necho Filesystem\necho '/dev/vda 9 9 100 99% /'\n"


class Rollout:
    """What a scenario declares and what came of it."""

    def __init__(self, lab: Any, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.harness = RolloutHarness(lab, folder, keepalive_s=1.0)
        self.version, self.count = "1.0", 1
        self.workers: tuple[WorkerDecl, ...] = ()
        self.options: dict[str, bool] = {}
        self.install: Install | None = None
        self.reports: list[SyncReport] = []
        self.exit_code: int | None = None

    def hosts(self) -> list[HiveHost]:
        """Return the declarations."""
        install = self.install or Install(local=LocalInstall(path=str(self.program())))
        return [
            host.hive(install, auto_start=False, workers=self.workers)
            for host in self.lab.hosts[: self.count]
        ]

    def program(self) -> Path:
        """Return a skep of the declared version."""
        path = self.folder / f"skep {self.version}"
        path.write_text(PROGRAM.format(version=self.version))
        path.chmod(stat.S_IRWXU)
        return path

    async def sync(self, **more: Any) -> None:
        """Run one sync and keep its report."""
        options = Options(**self.options)
        self.reports.append(await self.harness.sync(self.hosts(), options=options, **more))

    @property
    def report(self) -> SyncReport:
        """The last report."""
        return self.reports[-1]

    def row(self, number: int = 0) -> HostReport:
        """Return a host's row of the last report."""
        return self.report.hives[number]

    @property
    def scripted(self) -> ScriptedHost | None:
        """The first host, where hosts are nothing but answers."""
        host = self.lab.hosts[0]
        return host if isinstance(host, ScriptedHost) else None

    def fails_at(self, step: str, says: str, *, marker: str = "") -> None:
        """Make a step fail on the first host: a file there tells the program of this module."""
        if self.scripted:
            self.scripted.faults[step] = says
        else:
            (self.lab.hosts[0].home / marker).touch()

    def pretends(self, tool: str, script: str, *, alone: bool = False) -> None:
        """Put a program of ours before the host's own; `alone`: there are no others. Skips where a host's PATH is its own business."""
        host = self.lab.hosts[0]
        if not hasattr(host, "environment") or not isinstance(self.lab, LoopbackLab):
            pytest.skip("this level's hosts have programs of their own")
        tools = self.folder / "tools"
        tools.mkdir(exist_ok=True)
        (tools / tool).write_text(script)
        (tools / tool).chmod(stat.S_IRWXU)
        host.environment["PATH"] = str(tools) if alone else f"{tools}:{os.environ['PATH']}"

    def lacks(self, tool: str) -> None:
        """Take the programs of a name or pattern away from the first host. Skips where that cannot be done."""
        if self.scripted:
            self.scripted.tools.discard(tool)
            return
        self.pretends("unused", "#!/bin/sh\n", alone=True)
        tools = self.folder / "tools"
        for folder in ("/usr/bin", "/bin"):
            for program in Path(folder).iterdir():
                if not fnmatch(program.name, tool) and not (tools / program.name).exists():
                    (tools / program.name).symlink_to(program)

    def cut_at(self, step: str) -> None:
        """Drop the first host's connections when it says that it begins a step, once."""
        host = self.lab.hosts[0]
        if self.scripted:
            self.scripted.cut_at = step
            return
        if not isinstance(self.lab, LoopbackLab):
            pytest.skip("a real sshd's connections are cut by partitions, which have tests of their own")

        def strike(data: bytes) -> None:
            if f" begin {step}\n".encode() in data:
                host.on_output = lambda _: None
                host.cut()

        host.on_output = strike

    async def command_ended_at(self, step: str, signal_number: int) -> int | None:
        """Run `skep sync` and signal it when the first host says that it begins a step; return its exit code."""
        if not isinstance(self.lab, LoopbackLab):
            pytest.skip("only loopback hosts tell what they say while they say it")
        host = self.lab.hosts[0]
        (self.folder / "skep.toml").write_text(
            f'[[hive]]\nalias = "{host.alias}"\nhostname = "127.0.0.1"\nssh_port = {host.port}\nssh_user = "lab"\n'
            f'auto_start = false\nidentity_file = "{self.lab.identity}"\n'
            f'install = {{ local = {{ path = "{self.program()}" }} }}\n'
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "skep.cli.main", "sync", "-q", "-c", str(self.folder / "skep.toml")),
            *("--known-hosts", str(self.lab.known_hosts)),
            env={**os.environ, "SKEP_HOME": str(self.folder / "home")},
            stdout=asyncio.subprocess.DEVNULL,
        )

        def strike(data: bytes) -> None:
            if f" begin {step}\n".encode() in data and process.returncode is None:
                host.on_output = lambda _: None
                process.send_signal(signal_number)

        host.on_output = strike
        await process.wait()
        await self.lab.until_quiet()
        return process.returncode

    def installed(self, number: int = 0) -> str:
        """Return the version that the host's skep link leads to, "" for none."""
        host = self.lab.hosts[number]
        if isinstance(host, ScriptedHost):
            return host.current.split("-")[1] if host.current else ""
        link = host.home / ".local/share/skep/current"
        if not link.is_symlink():
            return ""
        program = link.parent / link.readlink() / "bin/skep"
        environment = {
            **os.environ,
            "HOME": str(self.folder),
        }  # Not the host's: it may hold a file that makes it fail.
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False, env=environment
        )
        return done.stdout.strip().removeprefix("skep ")

    def manifest(self) -> str:
        """Return the text of the first host's manifest."""
        if self.scripted:
            return self.scripted.manifest
        text: str = (self.lab.hosts[0].home / ".local/share/skep/manifest.json").read_text()
        return text
