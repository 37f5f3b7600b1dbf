"""The known_hosts file: read once for a thousand connections, and added to when a new host may be accepted."""

from pathlib import Path

from skep.rollout.sshlib import asyncssh

SSH_PORT = 22


class KnownHosts:
    """One file. Its parsed form is kept until the file changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int] | None = None
        self._parsed = asyncssh.import_known_hosts("")

    def read(self) -> asyncssh.SSHKnownHosts:
        """Return what is on record; nothing when there is no file."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return asyncssh.import_known_hosts("")
        stamp = (status.st_mtime_ns, status.st_size)
        if stamp != self._stamp:
            self._parsed, self._stamp = asyncssh.read_known_hosts(str(self.path)), stamp
        return self._parsed

    def knows(self, host: str, address: str, port: int) -> bool:
        """True when any key is on record for this host."""
        found = self.read().match(host, address, None if port == SSH_PORT else port)
        return any(found[:3])

    def record(self, host: str, port: int, key: asyncssh.SSHKey) -> None:
        """Add a host's key to the file."""
        line = f"{known_name(host, port)} {key.export_public_key().decode().strip()}\n"
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        before = self.path.read_text() if self.path.exists() else ""
        with self.path.open("a") as file:
            file.write(line if not before or before.endswith("\n") else f"\n{line}")


def known_name(host: str, port: int) -> str:
    """Return the name that known_hosts and ssh-keygen -R have for a host."""
    return host if port == SSH_PORT else f"[{host}]:{port}"
