"""Making the hive a service of this machine, and unmaking it: the unit file written, and systemd told."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import structlog

from skep.errors.hive import ServiceFailed
from skep.hive import files
from skep.hive.unit import Unit, controller

log = structlog.get_logger(__name__)

SYSTEMD = Path("/run/systemd/system")
"""Is there while systemd runs as the machine's first process (sd_booted(3))."""

COMMAND_S_MAX = 60.0
UNIT_MODE = 0o644


def is_systemd_running() -> bool:
    """True when this machine was started by systemd."""
    return SYSTEMD.is_dir()


def install(unit: Unit) -> None:
    """Write the unit file, whole or not at all. Raises: ServiceFailed."""
    try:
        unit.path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(unit.path, unit.text.encode(), mode=UNIT_MODE)
    except OSError as error:
        raise ServiceFailed(
            f"cannot write {unit.path}: {error.strerror}; --system needs root", command=f"write {unit.path}"
        ) from error


def uninstall(unit: Unit, *, is_system: bool) -> bool:
    """End the service, remove its unit file, and return False when there was none. Raises: ServiceFailed."""
    if not unit.path.exists():
        return False
    if is_systemd_running():
        run(unit.end_commands)
    try:
        files.remove(unit.path)
    except OSError as error:
        raise ServiceFailed(
            f"cannot remove {unit.path}: {error.strerror}; --system needs root",
            command=f"remove {unit.path}",
        ) from error
    if is_systemd_running():
        run([(*controller(is_system=is_system), "daemon-reload")])
    return True


def run(commands: Sequence[Sequence[str]]) -> None:
    """Run them one after the other until one fails. Raises: ServiceFailed, with what it said."""
    for command in commands:
        text = " ".join(command)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ServiceFailed(f"`{text}` could not be run: {error}", command=text) from error
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise ServiceFailed(
                f"`{text}` failed with {done.returncode}: {said[-1] if said else 'it said nothing'}",
                command=text,
            )
        log.info("service_command", command=text)
