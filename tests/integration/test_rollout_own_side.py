"""Why a host is not reached is told in words; what is wrong on the controller's own side at once, and for its hosts alone."""

from pathlib import Path

import msgspec
import pytest

from skep.errors.rollout import HostUnreachable, LoginRefused
from skep.process.socket import bind_listener
from skep.rollout.doctor import diagnose
from skep.rollout.report import HostOutcome
from skep.rollout.ssh import SshConnector
from skep.rollout.sync import Settings, Sync
from skep.spec.host import HiveHost, Install, LocalInstall
from skep.testkit.hosts.loopback import LoopbackHost, LoopbackLab


def declared(host: LoopbackHost, tmp_path: Path, key: Path) -> HiveHost:
    program = tmp_path / "skep"
    program.write_text("#!/bin/sh\necho skep\n")
    program.chmod(0o700)
    install = Install(local=LocalInstall(path=str(program)))
    return host.hive(install, auto_start=False, identity_file=str(key))


async def never(_: float) -> None:
    raise AssertionError("what is wrong here is not mended by waiting")


async def test_a_key_that_cannot_be_used_is_one_hosts_trouble(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_text("garbage")
    garbage.chmod(0o600)
    async with LoopbackLab(tmp_path / "lab", hosts=2) as lab:
        hosts = [
            declared(lab.hosts[0], tmp_path, garbage),
            declared(lab.hosts[1], tmp_path, lab.identity),
        ]
        connector = SshConnector(known_hosts=lab.known_hosts, agent=False)
        settings = Settings(base=tmp_path, cache=tmp_path / "cache")
        bad, good = (await Sync(connector, settings, sleep=never).run(hosts)).hives
        assert (bad.status, bad.error_code) == (HostOutcome.FAILED, "invalid_config")
        assert "is no private key" in bad.error
        assert good.status is HostOutcome.INSTALLED
        sick, well = await diagnose(connector, hosts)
        assert [check.verdict for check in sick.checks] == ["ok", "fail"]
        assert well.is_healthy


@pytest.mark.parametrize("written", [b"Host *\n  Port x\n", b'Host "\n', b"\xff\xfe", None])
async def test_a_configuration_of_ssh_that_cannot_be_read_is_told_at_once(
    tmp_path: Path, written: bytes | None
) -> None:
    config = tmp_path / "ssh config"
    if written is None:
        config.mkdir()
    else:
        config.write_bytes(written)
    async with LoopbackLab(tmp_path / "lab") as lab:
        host = declared(lab.hosts[0], tmp_path, lab.identity)
        connector = SshConnector(known_hosts=lab.known_hosts, agent=False, config=config)
        settings = Settings(base=tmp_path, cache=tmp_path / "cache")
        (row,) = (await Sync(connector, settings, sleep=never).run([host])).hives
        assert (row.status, row.error_code) == (HostOutcome.FAILED, "invalid_config")
        assert str(config) in row.error
        (sick,) = await diagnose(connector, [host])
        assert str(config) in sick.checks[-1].details


async def test_why_there_is_no_connection_is_told_in_words(tmp_path: Path) -> None:
    async with LoopbackLab(tmp_path / "lab") as lab:
        connector = SshConnector(known_hosts=lab.known_hosts, agent=False, connect_s=0.3)
        host = declared(lab.hosts[0], tmp_path, lab.identity)
        with bind_listener("127.0.0.1", 0) as mute:
            mute.listen()
            silent = msgspec.structs.replace(host, ssh_port=mute.getsockname()[1])
            with pytest.raises(HostUnreachable, match=r"no connection \(no answer within 0.3 s\)"):
                await connector.connect(silent)
        with pytest.raises(HostUnreachable, match=r"no connection \(Connection refused\)"):
            await connector.connect(silent)
        nobody = msgspec.structs.replace(host, hostname="nobody.invalid")
        with pytest.raises(HostUnreachable, match=r"no connection \([A-Z][a-z -]+\)"):
            await connector.connect(nobody)


async def test_a_key_that_the_configuration_names_and_that_is_not_there_is_passed_over(
    tmp_path: Path,
) -> None:
    config = tmp_path / "ssh config"
    async with LoopbackLab(tmp_path / "lab") as lab:
        host = msgspec.structs.replace(declared(lab.hosts[0], tmp_path, lab.identity), identity_file="")
        connector = SshConnector(known_hosts=lab.known_hosts, agent=False, config=config)
        config.write_text(f"Host *\n  IdentityFile {tmp_path}/none\n  IdentityFile {lab.identity}\n")
        await (await connector.connect(host)).aclose()
        config.write_text(f"Host *\n  IdentityFile {tmp_path}/none\n")
        with pytest.raises(LoginRefused):
            await connector.connect(host)
