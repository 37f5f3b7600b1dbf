"""ProxyJump and the agent, as ~/.ssh/config or skep.toml declares them: with real servers at both ends."""

import asyncio
import shutil
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path

import asyncssh
import pytest

from skep.errors.rollout import HostKeyRefused, HostUnreachable, LoginRefused
from skep.rollout.artifact import resolve
from skep.rollout.report import HostOutcome, HostReport
from skep.rollout.ssh import SshConnector
from skep.rollout.staging import fetch
from skep.rollout.sync import Settings, Sync
from skep.spec.host import GitInstall, HiveHost, Install, LocalInstall
from skep.testkit.hosts.loopback import LoopbackLab
from skep.testkit.hosts.netns import NetnsLab, missing
from skep.testkit.sources import make_repository


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncGenerator[LoopbackLab]:
    async with LoopbackLab(tmp_path / "lab", hosts=3) as lab:
        lab.hosts[0].is_jump = lab.hosts[1].is_jump = True
        yield lab


def connector(lab: LoopbackLab | NetnsLab, config: str, **more) -> SshConnector:
    (lab.folder / "config").write_text(config)
    given = {"known_hosts": lab.known_hosts, "identities": (lab.identity,), "agent": False, **more}
    return SshConnector(config=lab.folder / "config", **given)


def through(lab: LoopbackLab, way: str) -> str:
    first, second, target = (host.port for host in lab.hosts)
    return (
        f"Host first\n  HostName 127.0.0.1\n  Port {first}\n  User lab\n"
        f"Host second\n  HostName 127.0.0.1\n  Port {second}\n  User lab\n"
        f"Host target\n  HostName 127.0.0.1\n  Port {target}\n  User lab\n  ProxyJump {way}\n"
    )


TARGET = HiveHost(alias="t", hostname="target", install=Install(local=LocalInstall(path="skep")))


async def said_by_target(ssh: SshConnector, lab: LoopbackLab) -> str:
    transport = await ssh.connect(TARGET)
    try:
        told = await transport.run("pwd", limit_s=10)
    finally:
        await transport.aclose()
    async with asyncio.timeout(5):  # The jumps are closed with the connection.
        while any(host.connections for host in lab.hosts):
            await asyncio.sleep(0.01)
    return told.stdout.strip()


@pytest.mark.parametrize(
    "way", ["first", "first,second", "lab@127.0.0.1:{port}", "ssh://lab@127.0.0.1:{port}"]
)
async def test_a_host_is_reached_through_the_jumps_that_the_configuration_names(
    lab: LoopbackLab, way: str
) -> None:
    config = through(lab, way.format(port=lab.hosts[0].port))
    assert await said_by_target(connector(lab, config), lab) == str(lab.hosts[2].home)
    ports = [host.port for host in lab.hosts]
    wanted = (
        [[("127.0.0.1", ports[1])], [("127.0.0.1", ports[2])]]
        if "," in way
        else [[("127.0.0.1", ports[2])], []]
    )
    assert [host.relayed for host in lab.hosts[:2]] == wanted


async def test_the_keys_of_jump_and_target_are_both_verified(lab: LoopbackLab) -> None:
    good = lab.known_hosts.read_text().splitlines(keepends=True)
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    for changed, named in ((0, "jump host first"), (2, "target")):
        lines = list(good)
        lines[changed] = f"{lines[changed].split(' ')[0]} {other}"
        lab.known_hosts.write_text("".join(lines))
        for accept_new in (False, True):
            with pytest.raises(HostKeyRefused, match=named):
                await connector(lab, through(lab, "first"), accept_new=accept_new).connect(TARGET)
    assert not any(host.commands for host in lab.hosts)


async def test_new_jumps_and_targets_are_accepted_where_that_is_asked_for(lab: LoopbackLab) -> None:
    lab.known_hosts.unlink()
    with pytest.raises(HostKeyRefused, match="jump host first"):
        await connector(lab, through(lab, "first")).connect(TARGET)
    await said_by_target(connector(lab, through(lab, "first"), accept_new=True), lab)
    assert len(lab.known_hosts.read_text().splitlines()) == 2
    await said_by_target(connector(lab, through(lab, "first")), lab)


async def test_a_jump_that_refuses_or_leads_in_a_circle_is_named(lab: LoopbackLab) -> None:
    lab.hosts[0].is_jump = False
    with pytest.raises(HostUnreachable, match="target"):
        await connector(lab, through(lab, "first")).connect(TARGET)
    lab.hosts[0].is_welcome = False
    with pytest.raises(LoginRefused, match="jump host first"):
        await connector(lab, through(lab, "first")).connect(TARGET)
    circle = through(lab, "first") + "Host first\n  ProxyJump second\nHost second\n  ProxyJump first\n"
    report = await Sync(connector(lab, circle), Settings(base=lab.folder, cache=lab.folder)).run([TARGET])
    assert report.hives[0].status is HostOutcome.FAILED, report


async def test_a_jump_host_that_every_host_goes_through_is_not_sent_through_itself(lab: LoopbackLab) -> None:
    config = through(lab, "first") + "Host *\n  ProxyJump first\n"
    assert await said_by_target(connector(lab, config), lab) == str(lab.hosts[2].home)


@pytest.fixture
async def net(tmp_path: Path) -> AsyncGenerator[NetnsLab]:
    async with NetnsLab(tmp_path / "net", hosts=2) as net:
        yield net


@pytest.mark.root
@pytest.mark.skipif(bool(missing()), reason=missing() or "can run")
async def test_a_host_that_only_its_jump_can_reach_is_installed_through_real_sshd(
    net: NetnsLab, tmp_path: Path
) -> None:
    jump, target = net.hosts
    # The target has no way back to us: only the jump host is its neighbour.
    subprocess.run(
        ["ip", "-n", target.namespace, "route", "add", "blackhole", f"{net.gateway}/32"], check=True
    )
    (tmp_path / "skep").write_text("#!/bin/sh\necho skep 1.0\n")
    host = target.hive(Install(local=LocalInstall(path=str(tmp_path / "skep"))), auto_start=False)
    settings = Settings(base=tmp_path, cache=tmp_path / "cache")
    with pytest.raises(HostUnreachable):
        await connector(net, "", connect_s=1).connect(host)
    ssh = connector(net, f"Host {target.address}\n  ProxyJump root@{jump.address}\n")
    report = await Sync(ssh, settings).run([host])
    assert report.hives[0].status is HostOutcome.INSTALLED, report
    assert (target.home / ".local/bin/skep").is_symlink()
    assert (await Sync(ssh, settings).run([host])).hives[0].status is HostOutcome.ALREADY


@pytest.fixture
def agent_key(net: NetnsLab, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A key that only an agent here holds, and that opens the first host, which serves repositories."""
    key, socket = net.folder / "git key", net.folder / "agent"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    with (net.hosts[0].home / ".ssh/authorized_keys").open("a") as file:
        file.write(Path(f"{key}.pub").read_text())
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL) as agent:
        try:
            monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
            # What git here asks the repository with: no configuration of this user, the lab's record of keys.
            record = f"-F /dev/null -o UserKnownHostsFile='{net.known_hosts}' -o BatchMode=yes"
            monkeypatch.setenv("GIT_SSH_COMMAND", f"ssh {record}")
            until(socket.exists)
            subprocess.run(["ssh-add", "-q", str(key)], check=True)
            key.unlink()
            yield
        finally:
            agent.kill()


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


@pytest.mark.root
@pytest.mark.skipif(bool(missing()), reason=missing() or "can run")
@pytest.mark.skipif(
    not all(map(shutil.which, ("git", "ssh-agent", "ssh-add", "ssh"))),
    reason="needs git and OpenSSH's client",
)
@pytest.mark.usefixtures("agent_key")
async def test_a_repository_over_ssh_is_cloned_by_the_keys_of_the_agent_here_only_where_that_is_declared(
    net: NetnsLab, tmp_path: Path
) -> None:
    server, target = net.hosts
    shutil.copyfile(net.known_hosts, target.home / ".ssh/known_hosts")
    made = make_repository(server.home / "skep").removeprefix("file://")
    install = Install(git=GitInstall(repo=f"root@{server.address}:{made}", ref="broken"))
    settings = Settings(base=tmp_path, cache=tmp_path / "cache")

    async def row(config: str, **declared: bool) -> HostReport:
        ssh = connector(net, config, agent=True)
        return (await Sync(ssh, settings).run([target.hive(install, auto_start=False, **declared)])).hives[0]

    refused = await row("")
    assert (refused.status, refused.steps[-1].name) == (HostOutcome.FAILED, "clone"), refused
    assert "Permission denied" in refused.error
    forwards = f"Host {target.address}\n  ForwardAgent yes\n"
    assert (await row(forwards, forward_agent=False)).status is HostOutcome.FAILED, (
        "skep.toml has the last word"
    )
    cloned = await row(forwards)
    # This ref cannot be built, which is quickly seen, and after the clone.
    assert [step.outcome for step in cloned.steps] == ["done", "failed"], cloned
    assert "compile error at line 7" in cloned.error
    declared = target.hive(install, forward_agent=True)
    assert await clones(connector(net, "", agent=True), declared)
    assert not await clones(connector(net, "", agent=True), target.hive(install))


async def clones(ssh: SshConnector, host: HiveHost) -> bool:
    """Run the step that clones, by itself; True when it succeeds."""
    step = fetch(await resolve(host.install, base=Path(), cache=Path()))
    assert step is not None
    transport = await ssh.connect(host)
    try:
        return (await transport.run(f"set -e\n{step.script}", limit_s=60)).exit_status == 0
    finally:
        await transport.aclose()


@pytest.mark.root
@pytest.mark.skipif(bool(missing()), reason=missing() or "can run")
@pytest.mark.skipif(not all(map(shutil.which, ("git", "ssh"))), reason="needs git and OpenSSH's client")
async def test_a_deploy_key_on_the_host_opens_a_repository_without_an_agent(
    net: NetnsLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, target = net.hosts
    record = f"-F /dev/null -i '{net.identity}' -o UserKnownHostsFile='{net.known_hosts}' -o BatchMode=yes"
    monkeypatch.setenv("GIT_SSH_COMMAND", f"ssh {record}")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    shutil.copyfile(net.known_hosts, target.home / ".ssh/known_hosts")
    shutil.copy(net.identity, target.home / ".ssh/deploy")
    (target.home / ".ssh/config").write_text(
        f"Host {server.address}\n  IdentityFile ~/.ssh/deploy\n  IdentitiesOnly yes\n"
    )
    made = make_repository(server.home / "skep").removeprefix("file://")
    install = Install(git=GitInstall(repo=f"root@{server.address}:{made}", ref="v1.0"))
    assert await clones(connector(net, ""), target.hive(install))
    (target.home / ".ssh/config").unlink()
    assert not await clones(connector(net, ""), target.hive(install))
