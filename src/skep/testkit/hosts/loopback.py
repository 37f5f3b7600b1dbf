"""Hosts in this process: a real SSH server each (asyncssh), a private home, real shell commands. No root, no Docker.

As with a real sshd, a command outlives its connection; only its stdin closes. Everything that a lab's commands started
is marked in its environment, and is killed when the lab closes, daemons included.
"""

import asyncio
import os
import shutil
import signal
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncssh

from skep.process.socket import bind_listener
from skep.spec.host import HiveHost, Install

LAB_VARIABLE = "SKEP_LAB"
KILL_S_MAX = 5.0
CRASH_ROUNDS_MAX = 50
BLOCK_BYTES = 64 * 1024


class LoopbackHost:
    """One host. `on_command`, `on_input` and `on_output` see each command, what is said to it and what it says, and may cut."""

    def __init__(self, alias: str, home: Path, lab: str) -> None:
        self.alias, self.home, self._lab = alias, home, lab
        self.port = 0
        self.commands: list[str] = []
        self.login_noise = ""
        self.is_welcome = True
        self.is_jump = False
        self.relayed: list[tuple[str, int]] = []
        self.on_command: Callable[[str], None] = lambda _: None
        self.on_input: Callable[[bytes], None] = lambda _: None
        self.on_output: Callable[[bytes], None] = lambda _: None
        self.environment: dict[str, str] = {}
        self.connections: set[asyncssh.SSHServerConnection] = set()
        self._acceptor: asyncssh.SSHAcceptor | None = None

    async def start(self, *, host_key: asyncssh.SSHKey, authorized: Path) -> None:
        """Listen on a free loopback port."""
        self.home.mkdir(parents=True, exist_ok=True)
        listener = bind_listener("127.0.0.1", 0)
        self._acceptor = await asyncssh.listen(
            sock=listener,
            server_factory=lambda: _Server(self),
            server_host_keys=[host_key],
            authorized_client_keys=str(authorized),
            process_factory=self._serve,
            sftp_factory=lambda channel: _Files(channel, self.home),
            allow_scp=False,
            encoding=None,
            config=None,
            agent_forwarding=False,
        )
        self.port = self._acceptor.get_port()

    def cut(self) -> None:
        """Drop every connection at once, as a cable would."""
        for connection in list(self.connections):
            connection.abort()

    async def aclose(self) -> None:
        """Stop listening and drop the connections."""
        self.cut()
        if self._acceptor is not None:
            self._acceptor.close()
            await self._acceptor.wait_closed()

    def hive(self, install: Install, **declared: Any) -> HiveHost:
        """Return this host's `[[hive]]` declaration."""
        return HiveHost(
            alias=self.alias,
            hostname="127.0.0.1",
            ssh_port=self.port,
            ssh_user="lab",
            install=install,
            **declared,
        )

    async def _serve(self, process: "asyncssh.SSHServerProcess[bytes]") -> None:
        command = process.command or "true"
        self.commands.append(command)
        self.on_command(command)
        noise = f"printf '%s\\n' {self.login_noise!r}\n" if self.login_noise else ""
        child = await asyncio.create_subprocess_exec(
            "sh",
            "-c",
            noise + command,
            cwd=self.home,
            env={
                "HOME": str(self.home),
                "PATH": os.environ["PATH"],
                "LANG": "C.UTF-8",
                LAB_VARIABLE: self._lab,
                **self.environment,
            },
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        feeding = asyncio.create_task(_feed(process, child, self.on_input))
        try:
            await asyncio.gather(
                _pump(child.stdout, process.stdout, self.on_output),
                _pump(child.stderr, process.stderr, self.on_output),
            )
            code = await child.wait()
        finally:
            feeding.cancel()
            await asyncio.wait([feeding])
        if code < 0:
            process.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
        else:
            process.exit(code)


async def _feed(
    process: "asyncssh.SSHServerProcess[bytes]",
    child: asyncio.subprocess.Process,
    on_input: Callable[[bytes], None],
) -> None:
    """Pass stdin on; when the channel ends, for whatever reason, the command's stdin ends."""
    assert child.stdin is not None
    try:
        while data := await process.stdin.read(BLOCK_BYTES):
            on_input(data)
            child.stdin.write(data)
            await child.stdin.drain()
    except (asyncssh.Error, OSError):
        pass  # The connection or the command is gone, which closing its stdin says.
    finally:
        child.stdin.close()


async def _pump(
    source: asyncio.StreamReader | None,
    target: "asyncssh.SSHWriter[bytes]",
    on_output: Callable[[bytes], None],
) -> None:
    """Pass output on; it is drained to the end also when nobody takes it any more, so that the command can finish."""
    assert source is not None
    while data := await source.read(BLOCK_BYTES):
        on_output(data)
        with suppress(asyncssh.Error, OSError):
            target.write(data)
            await target.drain()


class _Server(asyncssh.SSHServer):
    def __init__(self, host: LoopbackHost) -> None:
        self._host, self._connections = host, host.connections
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._connections.add(conn)

    def begin_auth(self, _username: str) -> bool:
        """Refuse every key where the test wants that."""
        if self._connection is not None and not self._host.is_welcome:
            self._connection.set_authorized_keys(asyncssh.import_authorized_keys(""))
        return True

    def connection_requested(self, dest_host: str, dest_port: int, _orig_host: str, _orig_port: int) -> bool:
        """Carry a connection on to another machine, where the host is one to jump through."""
        if self._host.is_jump:
            self._host.relayed.append((dest_host, dest_port))
        return self._host.is_jump

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncssh's signature
        if self._connection is not None:
            self._connections.discard(self._connection)


class _Files(asyncssh.SFTPServer):
    """SFTP over the real paths, so that a file's name means the same to a command; relative ones start at the home."""

    def __init__(self, channel: Any, home: Path) -> None:
        super().__init__(channel)
        self._home = os.fsencode(home)

    def map_path(self, path: bytes) -> bytes:
        return os.path.join(self._home, path)  # noqa: PTH118 - bytes


class LoopbackLab:
    """N hosts, one client key, one known_hosts file. Use with `async with`."""

    def __init__(self, folder: Path, hosts: int = 1) -> None:
        self.folder = folder
        self.id = uuid.uuid4().hex
        self.hosts = [LoopbackHost(f"host-{n}", folder / f"host {n}'s home", self.id) for n in range(hosts)]
        self.identity = folder / "id_lab"
        self.known_hosts = folder / "known_hosts"

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        client_key = asyncssh.generate_private_key("ssh-ed25519")
        client_key.write_private_key(str(self.identity))
        self.identity.chmod(0o600)
        client_key.write_public_key(str(self.folder / "authorized"))
        for host in self.hosts:
            key = asyncssh.generate_private_key("ssh-ed25519")
            await host.start(host_key=key, authorized=self.folder / "authorized")
            self._trust(host, key)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in self.hosts:
            await host.aclose()
        await asyncio.shield(self._kill_marked())
        for host in self.hosts:
            shutil.rmtree(host.home, ignore_errors=True)

    def _trust(self, host: LoopbackHost, key: asyncssh.SSHKey) -> None:
        with self.known_hosts.open("a") as file:
            file.write(f"[127.0.0.1]:{host.port} {key.export_public_key().decode()}")

    def survivors(self) -> list[int]:
        """Return the pids of everything that this lab's commands started and that still runs."""
        mark = f"{LAB_VARIABLE}={self.id}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    def crash(self) -> None:
        """Kill every process of every host at once, as a power cut would; files stay as they are.

        Looked for again until there is none: one that was just forked may not have been seen.
        """
        for _ in range(CRASH_ROUNDS_MAX):
            pids = self.survivors()
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not pids:
                return

    async def until_quiet(self) -> None:
        """Wait until nothing that the lab's commands started runs any more. Raises: TimeoutError."""
        async with asyncio.timeout(KILL_S_MAX):
            while self.survivors():  # noqa: ASYNC110 - /proc tells nobody
                await asyncio.sleep(0.01)

    async def _kill_marked(self) -> None:
        async with asyncio.timeout(KILL_S_MAX):
            while self.survivors():
                self.crash()
                await asyncio.sleep(0.01)
