"""Rollout against Ansible and pyinfra: the same work on the same hosts, in turn, as ratios.

The work: a folder, a 5 MB program sent, a configuration written from a template, the program run, its answer checked;
then the same again when nothing is left to do. Hosts are network namespaces with the system's sshd (root needed). Each
peer runs from a virtual environment of its own, made below --peers (pip fetches it once).

    python benchmarks/rollout.py --hosts 8 32 --rounds 3
    python benchmarks/rollout.py --hosts 8 --round-trip-ms 50     # all of them at the other end of a long wire
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from skep.spec.host import Install, LocalInstall
from skep.testkit.hosts.netns import NetnsHost, NetnsLab, missing
from skep.testkit.rollout import RolloutHarness

PAYLOAD_BYTES = 5_000_000
PEERS = {"ansible": "ansible-core>=2.18,<3", "pyinfra": "pyinfra>=3.5,<4"}

# What pip installed is compiled; skep in a working tree is compiled at its first start, unless that is turned off.
_COMPILED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

PLAYBOOK = """
- hosts: all
  gather_facts: false
  vars: {ansible_python_interpreter: /usr/bin/python3}
  tasks:
    - file: {path: "{{ home }}/peer/bin", state: directory, mode: "0700"}
    - copy: {src: "{{ payload }}", dest: "{{ home }}/peer/bin/skep", mode: "0700"}
    - template: {src: "{{ source }}", dest: "{{ home }}/peer/hive.toml", mode: "0600"}
    - command: "{{ home }}/peer/bin/skep --version"
      changed_when: false
      register: answer
    - assert: {that: "'skep 1' in answer.stdout"}
    - stat: {path: "{{ home }}/peer/hive.toml"}
"""

PYINFRA = """
from pyinfra import host
from pyinfra.operations import files, server
home = host.data.home
files.directory(path=home + "/peer/bin", mode="700")
files.put(src=host.data.payload, dest=home + "/peer/bin/skep", mode="700")
files.template(src=host.data.source, dest=home + "/peer/hive.toml", mode="600", alias=host.name)
server.shell(commands=[home + "/peer/bin/skep --version | grep -q 'skep 1' && test -s " + home + "/peer/hive.toml"])
"""


def make_peer(folder: Path, name: str) -> Path:
    """Return the folder of a peer's programs, installed when it is not there yet."""
    venv = folder / name
    if not (venv / "bin" / ("ansible-playbook" if name == "ansible" else name)).exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin/python", "-m", "pip", "install", "-q", PEERS[name]], check=True)
    return venv / "bin"


class Bench:
    """One lab, and the three ways to do the same work on it."""

    def __init__(self, lab: NetnsLab, folder: Path, peers: Path, through: Sequence[str] = ()) -> None:
        """`through`: what stands before each command, to run it at the other end of a wire."""
        self.lab, self.folder, self.peers, self.through = lab, folder, peers, through
        self.payload = folder / "skep-1"
        self.payload.write_text("#!/bin/sh\necho skep 1\nexit\n" + "#" * PAYLOAD_BYTES)
        self.payload.chmod(0o700)
        self.source = folder / "hive.toml.j2"
        self.harness = RolloutHarness(lab, folder)

    async def skep(self) -> None:
        """One sync."""
        install = Install(local=LocalInstall(path=str(self.payload)))
        report = await self.harness.sync(
            [host.hive(install, auto_start=False) for host in self.lab.hosts], jobs=64
        )
        assert report.is_success, report

    async def skep_command(self) -> None:
        """One sync as people run it: a process of its own, with everything that it imports."""
        await self._run([Path(sys.executable).with_name("skep"), "sync", "--quiet", "-c", self._skep_toml(),
                         "--known-hosts", self.lab.known_hosts, "--jobs", "64"])  # fmt: skip

    async def ansible(self) -> None:
        """One playbook, pipelined, as many forks as hosts, connections kept."""
        inventory = self.folder / "inventory.ini"
        inventory.write_text("".join(self._ansible_line(host) for host in self.lab.hosts))
        (self.folder / "play.yml").write_text(PLAYBOOK)
        self.source.write_text("alias = {{ inventory_hostname }}\n")
        environment = {
            "ANSIBLE_FORKS": str(len(self.lab.hosts)),
            "ANSIBLE_PIPELINING": "True",
            "ANSIBLE_NOCOWS": "1",
            "ANSIBLE_SSH_ARGS": f"-o ControlMaster=auto -o ControlPersist=60s -o UserKnownHostsFile={self.lab.known_hosts}",
            "ANSIBLE_PRIVATE_KEY_FILE": str(self.lab.identity),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "at"),
        }
        extra = f"payload={self.payload} source={self.source}"
        await self._run([self.peers / "ansible/bin/ansible-playbook", "-i", inventory, "-e", extra,
                         self.folder / "play.yml"], environment)  # fmt: skip

    def _ansible_line(self, host: NetnsHost) -> str:
        return f"{host.alias} ansible_host={host.address} ansible_user=root home='{host.home}'\n"

    async def pyinfra(self) -> None:
        """One deploy, all hosts in parallel."""
        rows = [
            (host.alias, {"ssh_hostname": host.address, "ssh_user": "root", "ssh_key": str(self.lab.identity),
                          "ssh_known_hosts_file": str(self.lab.known_hosts), "home": str(host.home),
                          "payload": str(self.payload), "source": str(self.source)})
            for host in self.lab.hosts
        ]  # fmt: skip
        (self.folder / "inventory.py").write_text(f"hosts = {rows!r}\n")
        (self.folder / "deploy.py").write_text(PYINFRA)
        self.source.write_text("alias = {{ alias }}\n")
        await self._run([self.peers / "pyinfra/bin/pyinfra", "-y", "--parallel", "64", self.folder / "inventory.py",
                         self.folder / "deploy.py"])  # fmt: skip

    def _skep_toml(self) -> Path:
        path = self.folder / "skep.toml"
        rows = [
            f'[[hive]]\nalias = "{host.alias}"\nhostname = "{host.address}"\nssh_user = "root"\nauto_start = false\n'
            f'identity_file = "{self.lab.identity}"\ninstall = {{ local = {{ path = "{self.payload}" }} }}\n'
            for host in self.lab.hosts
        ]
        path.write_text("\n".join(rows))
        return path

    async def _run(self, argv: list[object], environment: dict[str, str] | None = None) -> None:
        process = await asyncio.create_subprocess_exec(
            *self.through,
            *map(str, argv),
            cwd=self.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**_COMPILED, "SKEP_HOME": str(self.folder / "home"), **(environment or {})},
        )
        out, _ = await process.communicate()
        if process.returncode:
            raise SystemExit(f"{argv[0]} failed:\n{out.decode()[-3000:]}")

    def wipe(self) -> None:
        """Make every host new again."""
        for host in self.lab.hosts:
            subprocess.run(
                ["rm", "-rf", host.home / ".local", host.home / ".cache", host.home / "peer"], check=True
            )


async def timed(work: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


@contextlib.asynccontextmanager
async def far_away(lab: NetnsLab, round_trip_ms: float) -> AsyncIterator[tuple[str, ...]]:
    """Yield what runs a command so far from the lab's hosts; nothing where they are near."""
    if not round_trip_ms:
        yield ()
        return
    namespace = f"{lab.bridge}far"
    _namespace("add", namespace)
    try:
        wire = await asyncio.create_subprocess_exec(
            *(sys.executable, Path(__file__).parent / "beside/wire.py", "--namespace", namespace),
            *("--address", f"{lab.gateway.rpartition('.')[0]}.250/24", "--bridge", lab.bridge),
            *("--round-trip-ms", str(round_trip_ms)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert wire.stdin is not None
        assert wire.stdout is not None
        try:
            if await wire.stdout.readline() != b"ready\n":
                raise SystemExit("the wire did not come up")
            through = ("ip", "netns", "exec", namespace)
            _meet(lab, through)
            yield through
        finally:
            wire.stdin.close()
            print(f"frames lost on the wire: {(await wire.stdout.read()).decode().split()[-1]}")
            await wire.wait()
    finally:
        _namespace("del", namespace)


def _namespace(verb: str, name: str) -> None:
    subprocess.run(["ip", "netns", verb, name], check=True)


def _meet(lab: NetnsLab, through: Sequence[str]) -> None:
    """Let each host be asked for its link's address before anything is timed: whoever came first would pay for it."""
    ask = "import socket, sys\nfor host in sys.argv[1:]: socket.create_connection((host, 22)).close()"
    hosts = [host.address for host in lab.hosts]
    subprocess.run([*through, sys.executable, "-c", ask, *hosts], check=True)


async def measure(hosts: int, rounds: int, peers: Path, round_trip_ms: float) -> None:
    with tempfile.TemporaryDirectory(prefix="skep-bench-") as name:
        folder = Path(name)
        async with NetnsLab(folder / "lab", hosts=hosts) as lab, far_away(lab, round_trip_ms) as through:
            bench = Bench(lab, folder, peers, through)
            ways = {"skep sync": bench.skep_command, "Ansible": bench.ansible, "pyinfra": bench.pyinfra}
            first: dict[str, list[float]] = {way: [] for way in ways}
            again: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(rounds):
                for way, work in ways.items():
                    bench.wipe()
                    first[way].append(await timed(work))
                    again[way].append(await timed(work))
            print_table(hosts, first, again)


def print_table(hosts: int, first: dict[str, list[float]], again: dict[str, list[float]]) -> None:
    ours = "skep sync"
    print(f"\n{hosts} hosts, medians of {len(first[ours])} interleaved rounds\n")
    print("| | first, s | ratio | no-op, s | ratio |\n| --- | --- | --- | --- | --- |")
    for way, seconds in first.items():
        ratios = [
            statistics.median(b / a for a, b in zip(rows[ours], rows[way], strict=True))
            for rows in (first, again)
        ]
        print(
            f"| {way} | {statistics.median(seconds):.2f} | {ratios[0]:.1f}× | {statistics.median(again[way]):.2f} | {ratios[1]:.1f}× |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, nargs="+", default=[8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--round-trip-ms", type=float, default=0.0)
    parser.add_argument("--peers", type=Path, default=Path(tempfile.gettempdir()) / "skep-bench-peers")
    given = parser.parse_args()
    if why := missing():
        print(f"skipped: {why}")
        return
    for name in PEERS:
        make_peer(given.peers, name)
    for hosts in given.hosts:
        asyncio.run(measure(hosts, given.rounds, given.peers, given.round_trip_ms))


if __name__ == "__main__":
    main()
