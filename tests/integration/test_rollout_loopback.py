"""Rollout over real SSH to hosts in this process, with real shell commands in private homes."""

import stat
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import asyncssh
import pytest

from skep.errors.rollout import StepLimitExceeded
from skep.rollout.plan import Options
from skep.rollout.report import HostOutcome, SyncReport
from skep.rollout.ssh import SshConnector
from skep.rollout.sync import Settings, Sync
from skep.spec.host import HiveHost, Install, LocalInstall
from skep.testkit.hosts.loopback import LoopbackLab

PROGRAM = """#!/bin/sh
# A skep that can do what an installation asks of it.
case "$1" in
  --version) echo "skep {version}"; exit {version_exit};;
  engine) echo "kind/key"; exit 0;;
  *) exit 0;;
esac
"""


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncGenerator[LoopbackLab]:
    async with LoopbackLab(tmp_path / "lab", hosts=3) as lab:
        yield lab


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Install]:
    def make(version: str = "1.0", version_exit: int = 0) -> Install:
        path = tmp_path / f"skep {version}"
        path.write_text(PROGRAM.format(version=version, version_exit=version_exit))
        path.chmod(stat.S_IRWXU)
        return Install(local=LocalInstall(path=str(path)))

    return make


def connector(lab: LoopbackLab) -> SshConnector:
    return SshConnector(known_hosts=lab.known_hosts, identities=(lab.identity,), agent=False)


async def sync(lab: LoopbackLab, tmp_path: Path, hosts: list[HiveHost], **settings) -> SyncReport:
    given = Settings(base=tmp_path, cache=tmp_path / "cache", **settings)

    async def no_pause(_: float) -> None: ...

    return await Sync(connector(lab), given, sleep=no_pause).run(hosts)


def declared(lab: LoopbackLab, install: Install, **more) -> list[HiveHost]:
    return [host.hive(install, auto_start=False, **more) for host in lab.hosts]


async def test_hosts_are_installed_and_a_second_run_does_nothing(lab, program, tmp_path: Path) -> None:
    hosts = declared(lab, program())
    first = await sync(lab, tmp_path, hosts)
    assert [row.status for row in first.hives] == [HostOutcome.INSTALLED] * 3, first
    for host in lab.hosts:
        assert (host.home / ".local/bin/skep").resolve().read_text().startswith("#!/bin/sh")
        assert stat.S_IMODE((host.home / ".local/share/skep/manifest.json").stat().st_mode) == 0o600
    assert [len(host.commands) for host in lab.hosts] == [1] * 3, "what reads stays for what is to be done"
    second = await sync(lab, tmp_path, hosts)
    assert [row.status for row in second.hives] == [HostOutcome.ALREADY] * 3
    assert [len(host.commands) for host in lab.hosts] == [2] * 3, "a no-op costs one round trip"


async def test_an_upgrade_keeps_the_old_version_for_a_rollback(lab, program, tmp_path: Path) -> None:
    await sync(lab, tmp_path, declared(lab, program("1.0")))
    upgraded = await sync(lab, tmp_path, declared(lab, program("2.0")))
    assert {row.status for row in upgraded.hives} == {HostOutcome.UPGRADED}
    link = lab.hosts[0].home / ".local/bin/skep"
    assert "skep 2.0" in link.resolve().read_text()
    back = await sync(lab, tmp_path, declared(lab, program("2.0")), options=Options(rollback=True))
    assert {row.status for row in back.hives} == {HostOutcome.ROLLED_BACK}
    assert "skep 1.0" in link.resolve().read_text()


async def test_a_program_that_fails_its_version_is_never_switched_to(lab, program, tmp_path: Path) -> None:
    await sync(lab, tmp_path, declared(lab, program("1.0")))
    report = await sync(lab, tmp_path, declared(lab, program("2.0", version_exit=3)))
    assert {row.status for row in report.hives} == {HostOutcome.FAILED}
    assert not report.is_success
    assert "verify failed" in report.hives[0].error
    assert "skep 1.0" in (lab.hosts[0].home / ".local/bin/skep").resolve().read_text()


async def test_noise_at_login_does_not_disturb(lab, program, tmp_path: Path) -> None:
    for host in lab.hosts:
        host.login_noise = "Welcome!\n  begin\t$(reboot) 'quotes'"
    report = await sync(lab, tmp_path, declared(lab, program()))
    assert {row.status for row in report.hives} == {HostOutcome.INSTALLED}, report


async def test_a_dry_run_changes_nothing(lab, program, tmp_path: Path) -> None:
    report = await sync(lab, tmp_path, declared(lab, program()), dry_run=True)
    assert {row.status for row in report.hives} == {HostOutcome.PLANNED}
    assert [step.name for step in report.hives[0].steps] == [
        "send",
        "stage",
        "verify",
        "configure",
        "switch",
        "record",
    ]
    assert list(lab.hosts[0].home.iterdir()) == []


async def test_a_cut_connection_fails_the_host_and_the_next_run_finishes(
    lab, program, tmp_path: Path
) -> None:
    victim = lab.hosts[0]
    victim.on_input = lambda data: victim.cut() if b"flock" in data else None
    report = await sync(lab, tmp_path, declared(lab, program()))
    assert report.hives[0].status is HostOutcome.FAILED
    assert report.hives[0].error_code in {"connection_lost", "host_unreachable"}
    assert report.hives[1].status is HostOutcome.INSTALLED
    victim.on_input = lambda _: None
    again = await sync(lab, tmp_path, declared(lab, program()))
    assert again.is_success


async def test_a_new_host_is_accepted_by_the_name_and_port_that_the_users_configuration_leads_to(
    lab, program, tmp_path: Path
) -> None:
    lab.known_hosts.unlink()
    (tmp_path / "config").write_text(
        f"Host gpu\n  HostName 127.0.0.1\n  Port {lab.hosts[0].port}\n  User lab\n"
    )
    host = HiveHost(alias="a", hostname="gpu", install=program(), auto_start=False)

    async def report(*, accept_new: bool) -> SyncReport:
        ssh = SshConnector(
            known_hosts=lab.known_hosts,
            identities=(lab.identity,),
            agent=False,
            config=tmp_path / "config",
            accept_new=accept_new,
        )
        return await Sync(ssh, Settings(base=tmp_path, cache=tmp_path / "cache")).run([host])

    assert (await report(accept_new=False)).hives[0].error_code == "host_key_refused"
    assert (await report(accept_new=True)).hives[0].status is HostOutcome.INSTALLED
    assert lab.known_hosts.read_text().startswith(f"[127.0.0.1]:{lab.hosts[0].port} ")
    assert (await report(accept_new=False)).hives[0].status is HostOutcome.ALREADY
    other = (
        lab.known_hosts.read_text().split(" ", 1)[0]
        + " "
        + asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    )
    lab.known_hosts.write_text(other)
    assert (await report(accept_new=True)).hives[0].error_code == "host_key_refused", (
        "a changed key is refused"
    )


async def test_a_script_beyond_its_limit_is_stopped_on_the_host_too(lab) -> None:
    transport = await connector(lab).connect(lab.hosts[0].hive(Install(local=LocalInstall(path="skep"))))
    try:
        with pytest.raises(StepLimitExceeded, match="no end within"):
            await transport.run("touch began; sleep 600", limit_s=0.5)
    finally:
        await transport.aclose()
    assert (lab.hosts[0].home / "began").exists()
    await lab.until_quiet()
