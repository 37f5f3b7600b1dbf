"""A declared key file, looked at before it is used: what is wrong with it is said here, not by a host that refuses us."""

import os
import stat
from pathlib import Path

from skep.errors import InvalidConfig
from skep.rollout.sshlib import asyncssh

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def usable(path: Path, *, has_agent: bool) -> Path:
    """Return the file when a login may be tried with it; a key with a passphrase is the agent's to use.

    Raises: InvalidConfig, with what to do. As OpenSSH does, a key of ours that others can read is refused.
    """
    if why := _lack(path, has_agent=has_agent):
        raise InvalidConfig(f"identity_file {path} {why}", path=str(path))
    return path


def _lack(path: Path, *, has_agent: bool) -> str:
    try:
        status = path.stat()
        data = path.read_bytes()
    except FileNotFoundError:
        return "is not there"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if status.st_mode & OTHERS and status.st_uid == os.geteuid():
        return f"can be read by others: chmod 600 {path}"
    try:
        asyncssh.import_private_key(data)
    except asyncssh.KeyImportError as error:
        if not _is_encrypted(error):
            return f"is no private key ({error})"
        return "" if has_agent else f"has a passphrase, and no agent runs that could hold it: ssh-add {path}"
    return ""


def _is_encrypted(error: asyncssh.KeyImportError) -> bool:
    """True for a key that only lacks its passphrase; asyncssh itself tells these by the text."""
    return str(error).startswith("Passphrase")
