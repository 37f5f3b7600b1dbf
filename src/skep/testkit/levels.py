"""What this machine can do, and why not: the reasons that skipped scenarios give."""

import functools
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from skep.errors import InvalidInput

LEVELS = ("scripted", "loopback", "netns", "container", "vm", "ssh")
DEFAULT_LEVEL = "loopback"
LEVEL_PREFIX = "level."
FAKE_DEVICES = "fake_devices"
PROBE_S = 5
_BY_HAND = {
    "vm": (
        "no lab of the kit boots machines. Start them (cd tests/hosts && vagrant up), then: TEST_SSH_HOST=192.168.56.10 "
        "TEST_SSH_USER=vagrant TEST_SSH_KEY=~/.vagrant.d/insecure_private_key pytest tests/integration/test_rollout_ssh.py"
    ),
    "ssh": (
        "scenarios break their hosts, so your own machines get a test of their own: "
        "TEST_SSH_HOST=… TEST_SSH_PORT=… TEST_SSH_USER=… TEST_SSH_KEY=… pytest tests/integration/test_rollout_ssh.py"
    ),
}
"""What a level that no lab makes is done by instead: see decision 058."""


def skip_reason(tags: Iterable[str], *, level: str = "", devices: str = "") -> str:
    """Say why a scenario with these tags cannot run here; empty when it can.

    `@level.netns` declares a level: with any, the scenario runs only at those. Without, it runs at each.
    `@fake_devices` says that a scenario names devices that only the fakes have.
    """
    tags = list(tags)
    if devices == "real" and FAKE_DEVICES in tags:
        return "it names fake devices, and this run is on real ones (--devices real)"
    declared = [tag.removeprefix(LEVEL_PREFIX) for tag in tags if tag.startswith(LEVEL_PREFIX)]
    if level and declared and level not in declared:
        return f"it declares the level {' or '.join(declared)}, and this run is at {level}"
    needed = [tag for tag in tags if tag in CAPABILITIES]
    if level in CAPABILITIES and (not declared or level in declared):
        needed.append(level)
    return next((reason for name in needed if (reason := missing(name))), "")


def host_lab(level: str, folder: Path, *, hosts: int = 3) -> Any:
    """Return a lab of hosts at a level, not yet entered. Raises: InvalidInput where no lab makes that level."""
    if level == "scripted":
        from skep.testkit.hosts.scripted import ScriptedLab

        return ScriptedLab(folder, hosts=hosts)
    if level == "loopback":
        from skep.testkit.hosts.loopback import LoopbackLab

        return LoopbackLab(folder, hosts=hosts)
    if level == "netns":
        from skep.testkit.hosts.netns import NetnsLab

        return NetnsLab(folder, hosts=hosts)
    if level == "container":
        from skep.testkit.hosts.container import IMAGE_CACHE, ContainerLab

        return ContainerLab(folder, hosts=hosts, cache=IMAGE_CACHE)
    raise InvalidInput(_BY_HAND.get(level, f"there is no level {level}"), level=level)


@functools.cache
def missing(capability: str) -> str:
    """Say what this machine lacks for a capability; empty when it has it."""
    return CAPABILITIES[capability]()


def _root() -> str:
    return "" if os.geteuid() == 0 else "needs root"


def _netns() -> str:
    if shutil.which("unshare") is None:
        return "needs unshare (util-linux)"
    done = subprocess.run(["unshare", "-nmu", "true"], capture_output=True, check=False, timeout=PROBE_S)
    return (
        "" if done.returncode == 0 else f"no namespaces here: {done.stderr.decode(errors='replace').strip()}"
    )


def _container() -> str:
    found = next((name for name in ("podman", "docker") if shutil.which(name)), "")
    if not found:
        return "needs podman or docker"
    with suppress(OSError, subprocess.TimeoutExpired):
        if subprocess.run([found, "info"], capture_output=True, check=False, timeout=PROBE_S).returncode == 0:
            return ""
    return f"{found} is installed, and does not answer"


def _vm() -> str:
    return _BY_HAND["vm"]


def _ssh() -> str:
    return _BY_HAND["ssh"]


def _cuda() -> str:
    return "" if os.path.exists("/dev/nvidiactl") else "needs an NVIDIA device"  # noqa: PTH110 - a device node


def _llama() -> str:
    found = any(importlib.util.find_spec(name) for name in ("xllamacpp", "llama_cpp"))
    return "" if found else "needs a llama.cpp library"


def _browser() -> str:
    return "" if shutil.which("chromium") else "needs chromium"


CAPABILITIES: dict[str, Callable[[], str]] = {
    "root": _root,
    "netns": _netns,
    "container": _container,
    "vm": _vm,
    "ssh": _ssh,
    "cuda": _cuda,
    "llama": _llama,
    "browser": _browser,
}
