"""The known_hosts file: read once for a thousand connections, and added to when a new host may be accepted."""

import shlex
from pathlib import Path

from skep.errors import InvalidConfig
from skep.rollout.sshlib import asyncssh

SSH_PORT = 22


class KnownHosts:
    """One file. Its parsed form is kept until the file changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int] | None = None
        self._parsed = asyncssh.import_known_hosts("")

    def read(self) -> asyncssh.SSHKnownHosts:
        """Return what is on record; nothing when there is no file. Raises: InvalidConfig when it cannot be read."""
        try:
            status = self.path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                self._parsed, self._stamp = asyncssh.read_known_hosts(str(self.path)), stamp
        except FileNotFoundError:
            return asyncssh.import_known_hosts("")
        except (OSError, ValueError) as error:
            raise InvalidConfig(f"{self.path} cannot be read: {error}", path=str(self.path)) from error
        return self._parsed

    def knows(self, host: str, address: str, port: int) -> bool:
        """True when any key is on record for this host."""
        found = self.read().match(host, address, None if port == SSH_PORT else port)
        return any(found[:3])

    def refusal(self, name: str, *, is_known: bool) -> str:
        """Return why a key is refused, and what to do. `name`: as `known_name` has it."""
        if not is_known:
            return (
                f"its host key is not in {self.path} yet: run again with --accept-new, "
                f"or ask its owner and add it with: ssh-keyscan {_for_keyscan(name)}"
            )
        return (
            f"its host key CHANGED: it is not the one in {self.path}, and another machine may be answering. If it was "
            f"reinstalled, remove the old key with: ssh-keygen -R {shlex.quote(name)} -f {shlex.quote(str(self.path))}"
        )

    def record(self, host: str, port: int, key: asyncssh.SSHKey) -> None:
        """Add a host's key to the file."""
        line = f"{known_name(host, port)} {key.export_public_key().decode().strip()}\n"
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        before = self.path.read_text() if self.path.exists() else ""
        with self.path.open("a") as file:
            file.write(line if not before or before.endswith("\n") else f"\n{line}")


def _for_keyscan(name: str) -> str:
    host, _, port = name.removeprefix("[").partition("]:")
    return f"-p {port} {host}" if port else host


def known_name(host: str, port: int) -> str:
    """Return the name that known_hosts and ssh-keygen -R have for a host."""
    return host if port == SSH_PORT else f"[{host}]:{port}"
