"""Hosts in network namespaces with the system's real sshd: own address, hostname, home, /etc/ssh, /run and processes.

The home is a folder of the lab that the host's own /etc/passwd names, so that programs outside it stay where they are.

Needs root, iproute2, util-linux and openssh-server. Each lab has a bridge of its own in 10.213.0.0/16; the killing of a
host's first process is a power cut, its link going down a partition.
"""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncssh

from skep.errors.testkit import LabUnavailable
from skep.spec.host import HiveHost, Install

SSHD = "/usr/sbin/sshd"
START_S_MAX = 15.0
NEEDS = ("ip", "unshare", "mount", "hostname")
SUBNET_TRIES_MAX = 50


def missing() -> str:
    """Return why this lab cannot run here, or "" when it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    lacking = [tool for tool in NEEDS if shutil.which(tool) is None]
    lacking += [] if Path(SSHD).exists() else ["sshd (apt-get install openssh-server)"]
    if lacking:
        return f"not here: {', '.join(lacking)}"
    probe = subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False)
    return "" if probe.returncode == 0 else "the kernel refuses new network namespaces"


def _ip(*argv: str) -> None:
    done = subprocess.run(["ip", *argv], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabUnavailable(f"ip {' '.join(argv)}: {done.stderr.strip()}")


class NetnsHost:
    """One host of a lab. `address` is its own; `home` is its root user's."""

    def __init__(self, alias: str, *, folder: Path, namespace: str, link: str, address: str) -> None:
        self.alias, self.address = alias, address
        self.home = folder / "home"
        self.folder, self.namespace, self._link = folder, namespace, link
        self.process: asyncio.subprocess.Process | None = None
        self.environment = dict(os.environ)
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")

    def make(self, *, bridge: str, prefix: int, authorized: str) -> None:
        """Create namespace, link and files."""
        for path in (self.home / ".ssh", self.folder / "ssh"):
            path.mkdir(parents=True, mode=0o700)
        (self.home / ".ssh/authorized_keys").write_text(authorized)
        users = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
        moved = [[*user[:5], str(self.home), *user[6:]] if user[0] == "root" else user for user in users]
        (self.folder / "passwd").write_text("".join(":".join(user) + "\n" for user in moved))
        self.host_key.write_private_key(str(self.folder / "ssh/key"))
        (self.folder / "ssh/key").chmod(0o600)
        (self.folder / "ssh/sshd_config").write_text(
            f"ListenAddress {self.address}\nHostKey /etc/ssh/key\nPermitRootLogin prohibit-password\n"
            "PasswordAuthentication no\nUsePAM no\nStrictModes no\nPidFile none\nUseDNS no\n"
            "MaxStartups 100\nSubsystem sftp internal-sftp\n"
        )
        _ip("netns", "add", self.namespace)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        _ip("link", "set", self._link, "master", bridge, "up")
        _ip("-n", self.namespace, "addr", "add", f"{self.address}/{prefix}", "dev", "eth0")
        for device in ("eth0", "lo"):
            _ip("-n", self.namespace, "link", "set", device, "up")

    def boot_argv(self) -> Sequence[str]:
        """Return what starts the host: a new tree of processes whose first one is sshd."""
        inside = (
            'hostname "$1"; mount --bind "$2/passwd" /etc/passwd; mount --bind "$2/ssh" /etc/ssh; '
            f'mount -t tmpfs tmpfs /run; mkdir -p /run/sshd; cd "$2/home"; exec {SSHD} -D -e'
        )
        return (
            *("ip", "netns", "exec", self.namespace),
            *("unshare", "-m", "-u", "-i", "-p", "-f", "--kill-child", "--mount-proc"),
            *("sh", "-c", inside, "sh", self.alias, str(self.folder)),
        )

    async def boot(self) -> None:
        """Start the host and wait until it listens. Raises: LabUnavailable."""
        log = (self.folder / "sshd.log").open("ab")
        try:
            self.process = await asyncio.create_subprocess_exec(
                *self.boot_argv(),
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            log.close()
        await self._until_listening()

    async def _until_listening(self) -> None:
        assert self.process is not None
        try:
            async with asyncio.timeout(START_S_MAX):
                while True:
                    if self.process.returncode is not None:
                        raise LabUnavailable(f"sshd ended: {(self.folder / 'sshd.log').read_text()[-300:]}")
                    with suppress(OSError):
                        _, writer = await asyncio.open_connection(self.address, 22)
                        writer.close()
                        await writer.wait_closed()
                        return
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise LabUnavailable(f"{self.alias} does not listen within {START_S_MAX:g} s") from None

    async def crash(self) -> None:
        """Pull the plug: every process of the host is killed at once."""
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            await self.process.wait()

    def partition(self) -> None:
        """Take the host's link down."""
        _ip("link", "set", self._link, "down")

    def heal(self) -> None:
        """Bring the link up again."""
        _ip("link", "set", self._link, "up")

    async def aclose(self) -> None:
        """Crash it and remove its namespace, and with it its link."""
        await self.crash()
        with suppress(LabUnavailable):
            _ip("netns", "del", self.namespace)

    def hive(self, install: Install, **declared: Any) -> HiveHost:
        """Return this host's `[[hive]]` declaration."""
        return HiveHost(alias=self.alias, hostname=self.address, ssh_user="root", install=install, **declared)


class NetnsLab:
    """N hosts on one bridge, one client key, one known_hosts file. Use with `async with`."""

    host_class: type[NetnsHost] = NetnsHost

    def __init__(self, folder: Path, hosts: int = 3) -> None:
        self.folder, self._count = folder, hosts
        self.identity, self.known_hosts = folder / "id_lab", folder / "known_hosts"
        self.hosts: list[NetnsHost] = []
        self._name = uuid.uuid4().hex[:6]
        self.bridge = f"skb{self._name}"
        self.gateway = ""

    async def __aenter__(self) -> Self:
        if why := missing():
            raise LabUnavailable(why)
        self.folder.mkdir(parents=True, exist_ok=True)
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(str(self.identity))
        self.identity.chmod(0o600)
        try:
            subnet = self._make_bridge()
            for number in range(self._count):
                self._make_host(number, subnet, key.export_public_key().decode())
            async with (
                asyncio.TaskGroup() as booting
            ):  # One that fails ends the others before the lab is cleared.
                for host in self.hosts:
                    booting.create_task(host.boot())
        except BaseException:
            await asyncio.shield(self.aclose())
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(self.aclose())

    async def aclose(self) -> None:
        """Remove hosts and bridge; what is gone already is fine."""
        ends = await asyncio.gather(*(host.aclose() for host in self.hosts), return_exceptions=True)
        with suppress(LabUnavailable):  # It may not have been made.
            _ip("link", "del", self.bridge)
        if failed := [end for end in ends if isinstance(end, BaseException)]:
            raise failed[0]

    def prepare(self, host: NetnsHost) -> None:
        """Give a host what its kind needs before it is made; a namespace needs nothing."""

    def _make_bridge(self) -> str:
        _ip("link", "add", self.bridge, "type", "bridge")
        _ip("link", "set", self.bridge, "up")
        for _ in range(SUBNET_TRIES_MAX):
            subnet = f"10.213.{random.SystemRandom().randrange(1, 255)}"
            taken = subprocess.run(
                ["ip", "-4", "route", "show", f"{subnet}.0/24"], capture_output=True, check=False
            )
            if not taken.stdout.strip():
                self.gateway = f"{subnet}.1"
                _ip("addr", "add", f"{self.gateway}/24", "dev", self.bridge)
                return subnet
        raise LabUnavailable("no free subnet in 10.213.0.0/16: are old labs left? See `ip -br link`")

    def _make_host(self, number: int, subnet: str, authorized: str) -> None:
        host = self.host_class(
            f"host-{number}",
            folder=self.folder / f"host-{number}",
            namespace=f"sk{self._name}n{number}",
            link=f"sk{self._name}v{number}",
            address=f"{subnet}.{10 + number}",
        )
        self.hosts.append(host)
        self.prepare(host)
        host.make(bridge=self.bridge, prefix=24, authorized=authorized)
        with self.known_hosts.open("a") as file:
            file.write(f"{host.address} {host.host_key.export_public_key().decode()}")
