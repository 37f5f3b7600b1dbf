"""Which hosts a skep.toml has brought somewhere before: the only way to notice that one is no longer declared.

Each file has a record of its own, so that what one declares is never extra to another.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from skep.errors import InvalidConfig
from skep.errors.provision import LockBroken
from skep.provision.lock import locked
from skep.rollout.report import BAD, HostOutcome, SyncReport
from skep.spec.host import HiveHost, is_same_login

NAME_HEX = 16
LOCK_S_MAX = 30.0


def path_of(config: Path, state: Path) -> Path:
    """Return where the record of a skep.toml is, below our folder for state."""
    return state / "rollout" / f"{hashlib.sha256(os.fsencode(config.resolve())).hexdigest()[:NAME_HEX]}.json"


def read(path: Path) -> list[HiveHost]:
    """Return the remembered hosts; none when there is no record. Raises: InvalidConfig when it is damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[HiveHost])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.DecodeError) as error:
        raise InvalidConfig(
            f"{path} is damaged ({error}): remove it; undeclared hosts are then not noticed", path=str(path)
        ) from error


async def update(path: Path, change: Callable[[list[HiveHost]], Sequence[HiveHost]]) -> None:
    """Replace the record by what `change` makes of it, while no other run does. Raises: InvalidConfig, LockTimedOut."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with locked(path.with_suffix(".lock"), wait_s_max=LOCK_S_MAX):
            _write(path, change(read(path)))
    except (OSError, LockBroken) as error:
        raise InvalidConfig(
            f"{path} cannot be written ({error}), so undeclared hosts will not be noticed: set SKEP_HOME to a folder that can",
            path=str(path),
        ) from error


def _write(path: Path, hosts: Sequence[HiveHost]) -> None:
    """Replace the record, atomically, readable by nobody else."""
    temporary = path.with_suffix(".new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(hosts))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def undeclared(before: Iterable[HiveHost], declared: Sequence[HiveHost]) -> list[HiveHost]:
    """Return the remembered hosts that the file no longer has.

    One that goes by another alias now, or is reached by another name, is still declared: to remove skep from it would be to
    remove what the file wants there.
    """
    aliases = {host.alias for host in declared}
    return [
        host
        for host in before
        if host.alias not in aliases and not any(is_same_login(host, other) for other in declared)
    ]


def after(before: Iterable[HiveHost], hosts: Iterable[HiveHost], report: SyncReport) -> list[HiveHost]:
    """Return what is to be remembered after a run: what it changed or found as declared, and what was known before.

    A host that was never reached and never changed is not remembered: a name that was mistyped once is no hive.
    """
    rows = {row.alias: row for row in report.hives}
    gone = {row.alias for row in report.hives if row.status is HostOutcome.REMOVED}
    touched = [host for host in hosts if rows[host.alias].status not in BAD or rows[host.alias].steps]
    return begun([host for host in before if host.alias not in gone], touched)


def begun(before: Iterable[HiveHost], hosts: Sequence[HiveHost]) -> list[HiveHost]:
    """Return what is to be remembered when a run on these hosts was interrupted: each may have been changed."""
    return [*undeclared(before, hosts), *hosts]
