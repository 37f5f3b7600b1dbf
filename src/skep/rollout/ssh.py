"""The real transport: one asyncssh connection a host, host keys verified, commands that end with the connection."""

import asyncio
import contextlib
import os
import secrets
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from skep.errors import InvalidConfig
from skep.errors.rollout import (
    ConnectionLost,
    HostKeyRefused,
    HostUnreachable,
    LoginRefused,
    StepLimitExceeded,
)
from skep.rollout.dialing import Dialed
from skep.rollout.identity import usable
from skep.rollout.jumps import Hop, identities, jumps_to
from skep.rollout.knownhosts import SSH_PORT, KnownHosts, known_name
from skep.rollout.sending import bytes_ahead, say
from skep.rollout.shell import command, following, probing, watched
from skep.rollout.sshlib import asyncssh
from skep.rollout.transport import OUTPUT_BYTES_MAX, OnLine, Result
from skep.spec.host import HiveHost

CONNECT_S = 30.0
KEEPALIVE_S, KEEPALIVE_MISSES_MAX = 15, 3
CLOSE_S_MAX = 5.0
LINE_BYTES_MAX = 64 * 1024
# Before all others: what processors compute by themselves. A tenth of a second for each 40 MB, against ChaCha20.
QUICK_CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"


class SshTransport:
    """A live connection. See `Transport`."""

    def __init__(
        self,
        connection: asyncssh.SSHClientConnection,
        alias: str,
        jumps: Sequence[asyncssh.SSHClientConnection] = (),
    ) -> None:
        self._connection = connection
        self._alias = alias
        self._jumps = jumps
        self._waiting: asyncssh.SSHClientProcess[bytes] | None = None

    async def run(
        self, script: str, *, limit_s: float, on_line: OnLine | None = None, is_brief: bool = False
    ) -> Result:
        """See `Transport.run`."""
        try:
            async with asyncio.timeout(limit_s):
                if is_brief:
                    return await self._probe(script)
                process = await self._begun(watched(script, hears=on_line is not None))
                return await self._finished(process, on_line)
        except TimeoutError:
            raise StepLimitExceeded(
                f"{self._alias}: no end within {limit_s:g} s; it was stopped",
                alias=self._alias,
                limit_s=limit_s,
            ) from None
        except (asyncssh.Error, OSError) as error:
            raise ConnectionLost(
                f"{self._alias}: the connection dropped ({error})", alias=self._alias
            ) from error

    async def _probe(self, script: str) -> Result:
        """Run a script that only reads; its shell stays for the next."""
        mark = secrets.token_hex(8)
        process = await self._connection.create_process(probing(script, mark), encoding=None)
        try:
            out = await _lines(process.stdout, until=mark)
        except BaseException:
            process.close()
            raise
        told, found, status = out.rpartition(f"{mark} ")
        if not found:  # It ended by itself.
            ended = await self._finished(process, None)
            return ended._replace(stdout=out)
        if self._waiting is not None:
            self._waiting.close()
        self._waiting = process
        return Result(int(status), told.removesuffix("\n"), "")

    async def _begun(self, text: str) -> "asyncssh.SSHClientProcess[bytes]":
        """Start a watched script in the shell that a probe left waiting, or by a command of its own."""
        process, self._waiting = self._waiting, None
        if process is None:
            return await self._connection.create_process(command(text), encoding=None)
        process.stdin.write(following(text))
        return process

    async def _finished(self, process: "asyncssh.SSHClientProcess[bytes]", on_line: OnLine | None) -> Result:
        """Wait for the end. Raises: ConnectionLost, when it has no exit status."""
        try:
            answering = partial(say, process, ahead_bytes=self._ahead_bytes())
            out, errors = await asyncio.gather(
                _lines(process.stdout, on_line, answering), _lines(process.stderr)
            )
            await process.wait_closed()
        finally:
            process.close()
        if process.exit_status is None:
            signal = process.exit_signal
            why = f"killed by SIG{signal[0]}" if signal else "the connection dropped before the command ended"
            raise ConnectionLost(f"{self._alias}: {why}", alias=self._alias)
        return Result(process.exit_status, out, errors)

    def _ahead_bytes(self) -> int | None:
        return None if self._jumps else bytes_ahead(self._connection)

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        await _close(self._connection, *reversed(self._jumps))


async def _close(*connections: asyncssh.SSHClientConnection) -> None:
    """Close them in this order: the last one carries those before it."""
    for connection in connections:
        connection.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S_MAX):
                await connection.wait_closed()
        connection.abort()


async def _lines(
    stream: Any,
    on_line: OnLine | None = None,
    say: Callable[[str | Path], Awaitable[None]] | None = None,
    *,
    until: str = "",
) -> str:
    """Return the output to its end, or to the line that begins with `until`, that one included; the newest of much."""
    kept: deque[bytes] = deque()
    size = 0
    async for line in stream:
        if on_line and say:
            text = line[:LINE_BYTES_MAX].decode(errors="replace").rstrip("\n")
            if (answer := on_line(text)) is not None:
                await say(answer)
        kept.append(line)
        size += len(line)
        while size > OUTPUT_BYTES_MAX and kept:
            size -= len(kept.popleft())
        if until and line.startswith(until.encode()):
            break
    return b"".join(kept).decode(errors="replace")


class _Client(asyncssh.SSHClient):
    """Is asked about a key that is not on record; the name and the port are those that ~/.ssh/config leads to.

    `refused`: what known_hosts calls the machine whose key was refused. `is_known`: it has another key there, or that one is revoked.
    """

    def __init__(self, known: KnownHosts, *, accepts_new: bool) -> None:
        self._known, self._accepts_new = known, accepts_new
        self.refused = ""
        self.is_known = True

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Record the key of a host that was never seen, where that is asked for; refuse any other."""
        self.is_known = self._known.knows(host, addr, port)
        if self.is_known or not self._accepts_new:
            self.refused = known_name(host, port)
            return False
        self._known.record(host, port, key)
        return True


class SshConnector:
    """Connects as OpenSSH would: `~/.ssh/config` (aliases, ProxyJump, identities), the agent, known_hosts.

    `accept_new` records the key of a host that is not known yet; a key that changed is refused always. `dialed`:
    connections that were begun already; the caller closes what is left of them.
    """

    def __init__(
        self,
        *,
        known_hosts: Path | None = None,
        accept_new: bool = False,
        config: Path | None = None,
        identities: tuple[Path, ...] = (),
        agent: bool = True,
        keepalive_s: float = KEEPALIVE_S,
        connect_s: float = CONNECT_S,
        dialed: Dialed | None = None,
    ) -> None:
        self._known = KnownHosts(known_hosts or Path.home() / ".ssh" / "known_hosts")
        self._accept_new = accept_new
        self._config = config
        self._identities = identities
        self._agent = agent
        self._keepalive_s = keepalive_s
        self._connect_s = connect_s
        self._dialed = dialed

    async def connect(self, host: HiveHost) -> SshTransport:
        """See `Connector.connect`."""
        where = f"{host.alias} ({host.hostname}:{host.ssh_port})"
        here = Hop(host.hostname, host.ssh_user, host.ssh_port if host.ssh_port != SSH_PORT else 0)
        jumps: list[asyncssh.SSHClientConnection] = []
        try:
            for hop in jumps_to(here, self._config):
                where = f"{host.alias}, at the jump host {hop.host}"
                jumps.append(await self._open(hop, self._shared(via=jumps)))
            where, hop = f"{host.alias} ({host.hostname}:{host.ssh_port})", here
            connection = await self._open(
                here, self._shared(via=jumps) | _of(host) | self._stands(here, jumps)
            )
            transport = SshTransport(connection, host.alias, jumps)
            jumps = []
        except HostKeyRefused as error:
            raise HostKeyRefused(f"{where}: {error}", alias=host.alias) from error
        except asyncssh.PermissionDenied as error:
            raise LoginRefused(
                f"{where}: login refused for {hop.user or 'the default user'}: add a key with ssh-copy-id, "
                "or set identity_file",
                alias=host.alias,
            ) from error
        except ValueError as error:  # Of what reads the user's configuration and the keys that it names.
            raise InvalidConfig(
                f"{where}: {self._config} is of no use: {error}", path=str(self._config)
            ) from error
        except (OSError, asyncssh.Error, TimeoutError) as error:
            if isinstance(error, OSError) and error.filename:  # No socket has a name: it is a file of ours.
                raise InvalidConfig(
                    f"{where}: {error.filename}: {error.strerror}", path=str(error.filename)
                ) from error
            raise HostUnreachable(
                f"{where}: no connection ({_why(error, self._connect_s)})", alias=host.alias
            ) from error
        finally:
            await asyncio.shield(_close(*reversed(jumps)))
        return transport

    async def _open(self, hop: Hop, options: dict[str, Any]) -> asyncssh.SSHClientConnection:
        if hop.port:  # Else the Port of ~/.ssh/config holds.
            options["port"] = hop.port
        if hop.user:
            options["username"] = hop.user
        if "client_keys" not in options and (keys := identities(hop, self._config)) is not None:
            options |= {"client_keys": keys, "ignore_encrypted": True}
        client = _Client(self._known, accepts_new=self._accept_new)
        try:
            connection, _ = await asyncssh.create_connection(lambda: client, hop.host, **options)
        except asyncssh.HostKeyNotVerifiable as error:
            name = client.refused or known_name(hop.host, hop.port or SSH_PORT)
            raise HostKeyRefused(self._known.refusal(name, is_known=client.is_known)) from error
        return connection

    def _stands(self, hop: Hop, jumps: Sequence[asyncssh.SSHClientConnection]) -> dict[str, Any]:
        """Return the TCP connection that was begun earlier, if there is one."""
        stands = None if jumps or not self._dialed else self._dialed.take(hop.host, hop.port or SSH_PORT)
        return {"sock": stands} if stands else {}

    def _shared(self, *, via: Sequence[asyncssh.SSHClientConnection]) -> dict[str, Any]:
        """Return what holds for the host and for each machine on the way to it."""
        options: dict[str, Any] = {
            "known_hosts": self._known.read(),
            "config": [str(self._config)] if self._config and self._config.exists() else None,
            "connect_timeout": self._connect_s,
            "login_timeout": self._connect_s,
            "keepalive_interval": self._keepalive_s,
            "keepalive_count_max": KEEPALIVE_MISSES_MAX,
            # Without it asyncssh would open the jumps itself, and look for their keys elsewhere.
            "tunnel": via[-1] if via else None,
        }
        if not self._agent:
            options["agent_path"] = None
        if not self._chooses_ciphers():
            options["encryption_algs"] = QUICK_CIPHERS
        if self._identities:
            options["client_keys"] = [str(path) for path in self._identities]
        return options

    def _chooses_ciphers(self) -> bool:
        """True when the user's own configuration says which ciphers are to be used, for any host."""
        if self._config is None or not self._config.exists():
            return False
        return "ciphers" in self._config.read_text(errors="replace").lower()


def _why(error: Exception, connect_s: float) -> str:
    """Return why there is no connection, in a person's words."""
    if isinstance(error, TimeoutError):
        return f"no answer within {connect_s:g} s"
    if isinstance(error, OSError) and error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return getattr(error, "strerror", "") or str(error) or type(error).__name__


def _of(host: HiveHost) -> dict[str, Any]:
    """Return the options that a host's own declaration gives, before those of ~/.ssh/config."""
    options: dict[str, Any] = {}
    if host.forward_agent is not None:
        options["agent_forwarding"] = host.forward_agent
    if host.identity_file:
        file = Path(host.identity_file).expanduser()
        options["client_keys"] = [str(usable(file, has_agent=bool(os.environ.get("SSH_AUTH_SOCK"))))]
        options["ignore_encrypted"] = True
    return options
