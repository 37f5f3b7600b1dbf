"""The real transport: one asyncssh connection a host, host keys verified, commands that end with the connection."""

import asyncio
import contextlib
import os
import shlex
from collections import deque
from pathlib import Path
from typing import Any

import asyncssh

from skep.errors.rollout import (
    ConnectionLost,
    HostKeyRefused,
    HostUnreachable,
    LoginRefused,
    StepFailed,
    StepLimitExceeded,
)
from skep.rollout.transport import OUTPUT_BYTES_MAX, OnLine, Result
from skep.spec.host import HiveHost

CONNECT_S = 30.0
KEEPALIVE_S, KEEPALIVE_MISSES_MAX = 15, 3
CLOSE_S_MAX = 5.0
REQUESTS_MAX = 32  # Blocks under way at once; their size is what the server says that it takes.
LINE_BYTES_MAX = 64 * 1024

# The script runs in a session of its own. When our end of stdin closes — also because we died or the network did — the
# watchdog ends that whole session: sshd by itself would let it run on. What we say meanwhile reaches the script.
_WRAPPER = """exec 3<&0
{open_input}
setsid sh -c {script} <{input} 3<&- &
p=$!
{{ cat <&3 >{output}; kill -TERM -- -$p; sleep 2; kill -KILL -- -$p; }} >/dev/null 2>&1 &
w=$!
exec 3<&-
wait $p; s=$?
kill $w 2>/dev/null
{close_input}
exit $s"""
_DEAF = {"open_input": "", "input": "/dev/null", "output": "/dev/null", "close_input": ""}
_HEARING = {
    "open_input": 'd=$(mktemp -d) && mkfifo -m 600 "$d/in" || exit 71',
    "input": '"$d/in"',
    "output": '"$d/in"',
    "close_input": 'rm -rf "$d"',
}


def wrapped(script: str, *, hears: bool) -> str:
    """Return the command that runs `script` under the watchdog; `hears`: our stdin is the script's."""
    parts = _HEARING if hears else _DEAF
    return f"exec sh -c {shlex.quote(_WRAPPER.format(script=shlex.quote(script), **parts))}"


class SshTransport:
    """A live connection. See `Transport`."""

    def __init__(self, connection: asyncssh.SSHClientConnection, alias: str) -> None:
        self._connection = connection
        self._alias = alias

    async def run(self, script: str, *, limit_s: float, on_line: OnLine | None = None) -> Result:
        """See `Transport.run`."""
        command = wrapped(script, hears=on_line is not None)
        try:
            async with asyncio.timeout(limit_s):
                process = await self._connection.create_process(command, encoding="utf-8", errors="replace")
                try:
                    out, errors = await asyncio.gather(
                        _lines(process.stdout, on_line, process.stdin), _lines(process.stderr, None, None)
                    )
                    await process.wait_closed()
                finally:
                    process.close()
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
        if process.exit_status is None:
            signal = process.exit_signal
            why = f"killed by SIG{signal[0]}" if signal else "the connection dropped before the command ended"
            raise ConnectionLost(f"{self._alias}: {why}", alias=self._alias)
        return Result(process.exit_status, out, errors)

    async def send(self, source: Path, target: str, *, mode: int) -> None:
        """See `Transport.send`."""
        temporary = f"{target}.{os.urandom(4).hex()}.part"
        try:
            async with self._connection.start_sftp_client() as sftp:
                await sftp.put(source, temporary, max_requests=REQUESTS_MAX)
                await sftp.chmod(temporary, mode)
                await sftp.posix_rename(temporary, target)
        except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection) as error:
            raise ConnectionLost(
                f"{self._alias}: the connection dropped while sending {source.name}", alias=self._alias
            ) from error
        except asyncssh.SFTPError as error:
            raise StepFailed(
                f"{self._alias}: cannot write {target}: {error.reason}",
                alias=self._alias,
                step="send",
                log_tail="",
            ) from error
        except (asyncssh.Error, OSError) as error:
            raise ConnectionLost(
                f"{self._alias}: the connection dropped while sending {source.name} ({error})",
                alias=self._alias,
            ) from error

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        self._connection.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S_MAX):
                await self._connection.wait_closed()
        self._connection.abort()


async def _lines(stream: Any, on_line: OnLine | None, answers: Any) -> str:
    kept: deque[str] = deque()
    size = 0
    async for line in stream:
        if on_line and (answer := on_line(line.rstrip("\n")[:LINE_BYTES_MAX])):
            answers.write(f"{answer}\n")
        kept.append(line)
        size += len(line)
        while size > OUTPUT_BYTES_MAX and kept:
            size -= len(kept.popleft())
    return "".join(kept)


class SshConnector:
    """Connects as OpenSSH would: `~/.ssh/config` (aliases, ProxyJump, identities), the agent, known_hosts.

    `accept_new` records the key of a host that is not known yet; a key that changed is refused always.
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
        forward_agent: bool = False,
    ) -> None:
        self._known_hosts = known_hosts or Path.home() / ".ssh" / "known_hosts"
        self._accept_new = accept_new
        self._config = config
        self._identities = identities
        self._agent = agent
        self._keepalive_s = keepalive_s
        self._connect_s = connect_s
        self._forward_agent = forward_agent

    async def connect(self, host: HiveHost) -> SshTransport:
        """See `Connector.connect`."""
        if self._accept_new and not self._knows(host):
            await self._record_key(host)
        where = f"{host.alias} ({host.hostname}:{host.ssh_port})"
        try:
            connection = await asyncssh.connect(host.hostname, **self._options(host))
        except asyncssh.HostKeyNotVerifiable as error:
            raise HostKeyRefused(
                f"{where}: its host key is not the one in {self._known_hosts} ({error.reason}). If the host is new, run "
                f"again with --accept-new; if it was reinstalled, remove its line with: ssh-keygen -R {_known_name(host)}",
                alias=host.alias,
            ) from error
        except asyncssh.PermissionDenied as error:
            raise LoginRefused(
                f"{where}: login refused for {host.ssh_user or 'the default user'}: add a key with ssh-copy-id, "
                "or set identity_file",
                alias=host.alias,
            ) from error
        except (OSError, asyncssh.Error, TimeoutError) as error:
            raise HostUnreachable(
                f"{where}: no connection ({error or type(error).__name__})", alias=host.alias
            ) from error
        return SshTransport(connection, host.alias)

    def _options(self, host: HiveHost) -> dict[str, Any]:
        identity = (Path(host.identity_file).expanduser(),) if host.identity_file else self._identities
        options: dict[str, Any] = {
            "port": host.ssh_port,
            "known_hosts": str(self._known_hosts) if self._known_hosts.exists() else b"",
            "config": [str(self._config)] if self._config and self._config.exists() else None,
            "connect_timeout": self._connect_s,
            "login_timeout": self._connect_s,
            "keepalive_interval": self._keepalive_s,
            "keepalive_count_max": KEEPALIVE_MISSES_MAX,
            "agent_forwarding": self._forward_agent,
        }
        if not self._agent:
            options["agent_path"] = None
        if host.ssh_user:
            options["username"] = host.ssh_user
        if identity:
            options["client_keys"] = [str(path) for path in identity]
        return options

    def _knows(self, host: HiveHost) -> bool:
        if not self._known_hosts.exists():
            return False
        found = asyncssh.read_known_hosts(str(self._known_hosts)).match(host.hostname, "", host.ssh_port)
        return any(found[:3])

    async def _record_key(self, host: HiveHost) -> None:
        try:
            async with asyncio.timeout(self._connect_s):
                key = await asyncssh.get_server_host_key(host.hostname, host.ssh_port, config=None)
        except (OSError, asyncssh.Error, TimeoutError) as error:
            raise HostUnreachable(f"{host.alias}: no connection ({error})", alias=host.alias) from error
        if key is None:
            raise HostKeyRefused(f"{host.alias}: the host shows no key", alias=host.alias)
        line = f"{_known_name(host)} {key.export_public_key().decode().strip()}\n"
        self._known_hosts.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        before = self._known_hosts.read_text() if self._known_hosts.exists() else ""
        with self._known_hosts.open("a") as file:
            file.write(line if not before or before.endswith("\n") else f"\n{line}")


def _known_name(host: HiveHost) -> str:
    return host.hostname if host.ssh_port == 22 else f"[{host.hostname}]:{host.ssh_port}"  # noqa: PLR2004 - SSH's own port
