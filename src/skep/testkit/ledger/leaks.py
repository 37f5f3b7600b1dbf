"""Is what a test left behind a leak, or only slow to go? And what a leak is called."""

import gc
import os
import re
import time
from pathlib import Path

from skep.testkit.ledger.device import leaked_bytes
from skep.testkit.ledger.snapshot import Snapshot, listening_port, take

SETTLE_S = 2.0
_EVERY_S = 0.01

_THREADS_KEPT = (
    "asyncio_",  # the default executor's threads end with their loop
    "AnyIO worker",
    "pytest_timeout",
    "tqdm_monitor",
    "waitpid-",  # asyncio's child watcher: it ends when its child is reaped
)
_FDS_KEPT = re.compile(
    r"/dev/(null|urandom|random|tty|nvidia.*|dri/.*)|/proc/.*|/sys/.*"
    r"|pipe:.*execnet|.*\.(so|pyc|py|db|db-wal|db-shm)(\.\d+)*|.*/\.hypothesis/.*"
)
_FILES_KEPT = re.compile(r"pytest-of-.*|__pycache__|\.X.*-lock|\.org\.chromium\..*|hsperfdata_.*")


def settle(before: Snapshot, exempt: Snapshot) -> Snapshot:
    """Return what stays, after it was given `SETTLE_S` to go: only a suspicion pays this time."""
    found = _suspects(before, exempt)
    if found.is_empty:
        return found
    gc.collect()
    deadline = time.monotonic() + SETTLE_S
    while True:
        _reap(found)
        found = _suspects(before, exempt)
        if found.is_empty or time.monotonic() >= deadline:
            return found
        time.sleep(_EVERY_S)


def describe(leaked: Snapshot) -> list[str]:
    """Say what each leaked thing is."""
    lines = [f"process {pid} ({_command(pid)})" for pid, _ in sorted(leaked.children)]
    for number, target in sorted(leaked.fds):
        port = listening_port(number) if target.startswith("socket:") else None
        lines.append(f"fd {number} ({target})" if port is None else f"port {port} (fd {number})")
    lines += [f"thread {each.name!r}" for each in sorted(leaked.threads, key=lambda each: each.name)]
    lines += [f"temporary file {name}" for name in sorted(leaked.files)]
    if leaked.device_bytes:
        lines.append(f"device memory {leaked.device_bytes / (1 << 20):.0f} MiB")
    return lines


def _suspects(before: Snapshot, exempt: Snapshot) -> Snapshot:
    found = take().leaked_since(before).leaked_since(exempt)
    return Snapshot(
        children=found.children,
        fds=frozenset(each for each in found.fds if not _FDS_KEPT.fullmatch(each[1])),
        threads=frozenset(each for each in found.threads if not each.name.startswith(_THREADS_KEPT)),
        files=frozenset(name for name in found.files if not _FILES_KEPT.fullmatch(name)),
        device_bytes=leaked_bytes(found.device_bytes, is_first_use=before.device_bytes == 0),
    )


def _reap(found: Snapshot) -> None:
    """Collect what has ended and was adopted by us: we are a subreaper, and nobody else will."""
    for pid, _ in found.children:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue


def _command(pid: int) -> str:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return "gone"
    return raw.replace(b"\0", b" ").decode(errors="replace").strip()[:200] or "a zombie"
