"""Rollout to hosts with a real sshd: in network namespaces with this system's, in containers with a Debian of their own."""

import asyncio
import stat
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from skep.rollout.report import HostOutcome, SyncReport
from skep.rollout.ssh import SshConnector
from skep.rollout.sync import Settings, Sync
from skep.spec.host import HiveHost, Install, LocalInstall
from skep.testkit.hosts import container, netns
from skep.testkit.hosts.container import IMAGE_CACHE, ContainerLab
from skep.testkit.hosts.netns import NetnsLab

LEVELS = {"netns": netns.missing(), "container": container.missing()}
pytestmark = [pytest.mark.root, pytest.mark.timeout(900), pytest.mark.xdist_group("hosts")]


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.skipif(bool(why), reason=why or "can run"))
        for name, why in LEVELS.items()
    ]
)
async def lab(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[NetnsLab]:
    made = (
        NetnsLab(tmp_path / "lab")
        if request.param == "netns"
        else ContainerLab(tmp_path / "lab", cache=IMAGE_CACHE)
    )
    async with made as lab:
        yield lab


def connector(lab: NetnsLab, **more) -> SshConnector:
    given = {"known_hosts": lab.known_hosts, "identities": (lab.identity,), "agent": False, **more}
    return SshConnector(**given)


def program(tmp_path: Path, version: str = "1.0") -> Install:
    path = tmp_path / f"skep-{version}"
    path.write_text(f"#!/bin/sh\necho skep {version}\n")
    path.chmod(stat.S_IRWXU)
    return Install(local=LocalInstall(path=str(path)))


async def sync(lab: NetnsLab, tmp_path: Path, hosts: list[HiveHost], **more) -> SyncReport:
    async def no_pause(_: float) -> None: ...

    settings = Settings(base=tmp_path, cache=tmp_path / "cache")
    return await Sync(connector(lab, **more), settings, sleep=no_pause).run(hosts)


def declared(lab: NetnsLab, install: Install) -> list[HiveHost]:
    return [host.hive(install, auto_start=False) for host in lab.hosts]


async def test_three_hosts_are_installed_by_real_sshd_and_then_left_alone(
    lab: NetnsLab, tmp_path: Path
) -> None:
    hosts = declared(lab, program(tmp_path))
    assert [row.status for row in (await sync(lab, tmp_path, hosts)).hives] == [HostOutcome.INSTALLED] * 3
    assert [row.status for row in (await sync(lab, tmp_path, hosts)).hives] == [HostOutcome.ALREADY] * 3
    for host in lab.hosts:
        assert (host.home / ".local/bin/skep").is_symlink()


async def test_a_program_of_several_megabytes_arrives_whole(lab: NetnsLab, tmp_path: Path) -> None:
    install = program(tmp_path)
    with (tmp_path / "skep-1.0").open("a") as file:
        file.write("exit\n" + "#" * 3_000_000)
    assert (await sync(lab, tmp_path, declared(lab, install))).is_success
    sizes = {(host.home / ".local/bin/skep").resolve().stat().st_size for host in lab.hosts}
    assert sizes == {(tmp_path / "skep-1.0").stat().st_size}


async def test_a_host_whose_key_changed_is_refused_with_what_to_do(lab: NetnsLab, tmp_path: Path) -> None:
    one, two, _ = (line.split(" ", 1) for line in lab.known_hosts.read_text().splitlines())
    lab.known_hosts.write_text(f"{one[0]} {two[1]}\n{two[0]} {two[1]}\n")
    report = await sync(lab, tmp_path, declared(lab, program(tmp_path))[:2])
    refused, fine = report.hives
    assert refused.error_code == "host_key_refused"
    assert "ssh-keygen -R" in refused.error
    assert fine.status is HostOutcome.INSTALLED


async def test_an_unknown_host_is_refused_until_it_is_accepted(lab: NetnsLab, tmp_path: Path) -> None:
    lab.known_hosts.unlink()
    hosts = declared(lab, program(tmp_path))[:1]
    assert (await sync(lab, tmp_path, hosts)).hives[0].error_code == "host_key_refused"
    assert (await sync(lab, tmp_path, hosts, accept_new=True)).is_success
    assert (await sync(lab, tmp_path, hosts)).is_success


async def test_a_login_that_is_refused_says_so(lab: NetnsLab, tmp_path: Path) -> None:
    (lab.hosts[0].home / ".ssh/authorized_keys").write_text("")
    report = await sync(lab, tmp_path, declared(lab, program(tmp_path))[:1])
    assert report.hives[0].error_code == "login_refused"


async def test_a_partition_during_an_install_keeps_the_old_version_and_the_next_run_finishes(
    lab: NetnsLab, tmp_path: Path
) -> None:
    assert (await sync(lab, tmp_path, declared(lab, program(tmp_path, "1.0")))).is_success
    victim, others = lab.hosts[0], lab.hosts[1:]
    slow = tmp_path / "skep-2.0"
    slow.write_text("#!/bin/sh\ntouch $HOME/verifying\nsleep 4\necho skep 2.0\n")
    slow.chmod(stat.S_IRWXU)
    new = Install(local=LocalInstall(path=str(slow)))

    async def cut_while_verifying() -> None:
        while not (victim.home / "verifying").exists():
            await asyncio.sleep(0.02)
        victim.partition()

    cutting = asyncio.create_task(cut_while_verifying())
    report = await sync(lab, tmp_path, declared(lab, new)[:1], keepalive_s=0.5, connect_s=2)
    await cutting
    assert report.hives[0].status in {HostOutcome.UNKNOWN, HostOutcome.FAILED}
    assert not report.is_success
    assert (victim.home / ".local/share/skep/current").readlink().name.startswith("skep-1.0")
    victim.heal()
    slow.write_text("#!/bin/sh\necho skep 2.0\n")
    assert (await sync(lab, tmp_path, declared(lab, new))).is_success
    assert len(others) == 2


async def test_a_crashed_host_is_unknown_and_never_taken_for_empty(lab: NetnsLab, tmp_path: Path) -> None:
    await lab.hosts[0].crash()
    report = await sync(lab, tmp_path, declared(lab, program(tmp_path)))
    assert [row.status for row in report.hives] == [
        HostOutcome.UNKNOWN,
        HostOutcome.INSTALLED,
        HostOutcome.INSTALLED,
    ]
    await lab.hosts[0].boot()
    assert (await sync(lab, tmp_path, declared(lab, program(tmp_path)))).is_success
