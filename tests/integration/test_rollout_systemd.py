"""The hive as a service of a user's systemd, on hosts that systemd booted: enabled, started, upgraded, removed."""

import asyncio
import stat
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from skep.rollout.report import HostOutcome
from skep.rollout.ssh import SshConnector
from skep.rollout.sync import Settings, Sync
from skep.spec.host import Install, LocalInstall
from skep.testkit.hosts import container
from skep.testkit.hosts.container import IMAGE_CACHE
from skep.testkit.hosts.systemd import SOURCES, SystemdLab

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(container.missing()), reason=container.missing() or "can run"),
    pytest.mark.timeout(900),  # The first on a machine makes the image.
    pytest.mark.xdist_group("hosts"),
]
SYSTEMCTL = 'export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}"; systemctl --user'
ASKS = "python3 -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1:9200/health\").status)'"


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncGenerator[SystemdLab]:
    async with SystemdLab(tmp_path / "lab", hosts=1, cache=IMAGE_CACHE) as lab:
        yield lab


def skep_of_this_checkout(folder: Path, release: str) -> Install:
    path = folder / f"skep-{release}"
    path.write_text(
        f'#!/bin/sh\n# {release}\nPYTHONPATH="{SOURCES}" exec "{sys.executable}" -m skep.cli.main "$@"\n'
    )
    path.chmod(stat.S_IRWXU)
    return Install(local=LocalInstall(path=str(path)))


async def test_a_hive_is_a_service_that_systemd_starts_restarts_and_forgets(
    lab: SystemdLab, tmp_path: Path
) -> None:
    ssh = SshConnector(known_hosts=lab.known_hosts, identities=(lab.identity,), agent=False)
    target = lab.hosts[0]

    async def says(script: str) -> str:
        transport = await ssh.connect(target.hive(skep_of_this_checkout(tmp_path, "one")))
        try:
            return (await transport.run(script, limit_s=60)).stdout.strip()
        finally:
            await transport.aclose()

    if not (version := await says(f'"{sys.executable}" --version')):
        pytest.skip("this machine's Python does not run on the container's libraries")
    assert version.startswith("Python 3.")
    settings = Settings(base=tmp_path, cache=tmp_path / "cache")
    host = target.hive(skep_of_this_checkout(tmp_path, "one"))
    first = (await Sync(ssh, settings).run([host])).hives[0]
    assert first.status is HostOutcome.INSTALLED, first
    assert {"service", "gate"} <= {step.name for step in first.steps}
    assert (
        await says(f"{SYSTEMCTL} is-active skep-hive; systemctl --user is-enabled skep-hive")
        == "active\nenabled"
    )
    assert await says(ASKS) == "200"
    assert await says("ls /var/lib/systemd/linger") == "root", "it outlives the login"
    assert await says("test -e .local/share/skep/hive.pid || echo no") == "no", (
        "our own supervisor is not there"
    )
    assert (await Sync(ssh, settings).run([host])).hives[0].status is HostOutcome.ALREADY

    pid = f"{SYSTEMCTL} show -p MainPID --value skep-hive"
    before = await says(pid)
    await says(f"kill -KILL {before}")
    async with asyncio.timeout(30):  # systemd starts it again.
        while await says(f"{ASKS} 2>/dev/null") != "200":
            await asyncio.sleep(0.2)
    killed = await says(pid)
    assert killed not in {before, "0"}

    upgraded = (await Sync(ssh, settings).run([target.hive(skep_of_this_checkout(tmp_path, "two"))])).hives[0]
    assert upgraded.status is HostOutcome.UPGRADED, upgraded
    assert await says(pid) not in {killed, "0"}, "the upgrade restarted it"
    assert await says(ASKS) == "200"

    removed = (await Sync(ssh, settings).run([], removed=[host])).hives[0]
    assert removed.status is HostOutcome.REMOVED, removed
    assert await says(f"{SYSTEMCTL} is-active skep-hive") == "inactive"
    # The lock stays, for it is held while the rest goes.
    kept = "find .config .local -name '*skep*' -not -type d; ls -A .local/share/skep"
    assert set((await says(kept)).split()) == {"lock"}
    assert await says(f"{ASKS} 2>/dev/null || echo refused") == "refused"
