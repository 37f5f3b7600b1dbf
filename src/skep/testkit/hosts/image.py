"""A host's image, made here from Debian's packages by debootstrap: no registry is asked. Made once, kept in a cache.

Needs root, debootstrap and a mirror that apt already uses on this machine.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from skep.errors.testkit import LabUnavailable

SUITE = "bookworm"
PACKAGES = (
    "openssh-server",
    "python3-minimal",
    "python3-venv",
    "git",
    "procps",
    "iproute2",
    "ca-certificates",
    "curl",
    # For hosts that are booted by it; the others start sshd alone.
    "systemd",
    "systemd-sysv",
    "dbus",
    "dbus-user-session",
    "libpam-systemd",
)
KEY = hashlib.sha256(" ".join((SUITE, *PACKAGES)).encode()).hexdigest()[:12]
NAME = f"localhost/skep-host:{KEY}"
BUILD_S_MAX = 900


def missing() -> str:
    """Return why no image can be made here, or "" when one can."""
    if os.geteuid() != 0:
        return "making an image needs root"
    lacking = [tool for tool in ("debootstrap", "podman", "runc", "tar") if shutil.which(tool) is None]
    return f"not here: {', '.join(lacking)} (apt-get install {' '.join(lacking)})" if lacking else ""


def ensure_tar(cache: Path) -> Path:
    """Return the image's tar, made when it is not in the cache. Blocking, about a minute. Raises: LabUnavailable."""
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    if cache.stat().st_uid != os.geteuid():
        raise LabUnavailable(f"{cache} belongs to somebody else: an image from there would be run as root")
    target = cache / f"host-{SUITE}-{KEY}.tar"
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _make(cache, target)
    return target


def _make(cache: Path, target: Path) -> None:
    root = cache / "root.new"
    shutil.rmtree(root, ignore_errors=True)
    _run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root))
    for generated in root.glob("etc/ssh/ssh_host_*"):
        generated.unlink()  # A host's key is its own, never an image's.
    _run("tar", "-C", str(root), "--numeric-owner", "-cf", f"{target}.new", ".")
    Path(f"{target}.new").rename(target)
    shutil.rmtree(root)


def _run(*argv: str) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=BUILD_S_MAX, check=False)
    except subprocess.TimeoutExpired as error:
        raise LabUnavailable(f"{argv[0]} did not end within {BUILD_S_MAX} s") from error
    if done.returncode != 0:
        raise LabUnavailable(f"{argv[0]} failed: {(done.stderr or done.stdout).strip()[-500:]}")
