"""Retries, rolling and reports, on scripted hosts: every command is expected, anything else fails."""

import itertools
from pathlib import Path

import msgspec
import pytest

from skep.errors.rollout import ConnectionLost, HostUnreachable, LoginRefused
from skep.rollout.plan import Options
from skep.rollout.report import HostOutcome, SyncReport
from skep.rollout.scripted import ScriptedConnector, ScriptedTransport
from skep.rollout.sync import RETRIES_MAX, Settings, Sync
from skep.spec.host import HiveHost, Install, LocalInstall

PROBE = "begin"
FACTS = """$NONCE begin
home\t/home/u
uname\tLinux x86_64
time\t0
uid\t1000
python\t3.12\t/usr/bin/python3
df\t/dev/vda 99999999999 1 99999999 1% /
writable\tyes
tool\tflock
tool\tsetsid
tool\tsha256sum
tool\ttimeout
current\t{current}
link\t{link}
{versions}manifest\t{manifest}
systemd_user\tno
service\t{service}
$NONCE end
"""


def facts(*, key: str = "", service: str = "stopped") -> str:
    return FACTS.format(
        current=f"versions/{key}" if key else "",
        link="../share/skep/current/bin/skep" if key else "",
        versions=f"version\t{key}\n" if key else "",
        manifest=f'{{"key": "{key}"}}',
        service=service,
    )


def marks(*names: str, failed: str = "") -> str:
    lines = [f"$NONCE begin {name}\n$NONCE done {name}" for name in names]
    if failed:
        lines.append(f"$NONCE begin {failed}\nsome output\nthe reason\n$NONCE failed {failed} 1")
    return "\n".join(lines) + "\n"


INSTALL = ("send", "stage", "verify", "configure", "switch", "service", "gate", "record")


@pytest.fixture
def install(tmp_path: Path) -> Install:
    (tmp_path / "skep").write_text("#!/bin/sh\n")
    return Install(local=LocalInstall(path="skep"))


def host(alias: str, install: Install) -> HiveHost:
    return HiveHost(alias=alias, hostname=f"{alias}.example", install=install)


def fresh() -> ScriptedTransport:
    transport = ScriptedTransport()
    transport.expect(PROBE, stdout=facts())
    transport.expect("flock", stdout=marks(*INSTALL))
    return transport


class Naps:
    def __init__(self) -> None:
        self.slept_s: list[float] = []

    async def __call__(self, delay_s: float) -> None:
        self.slept_s.append(delay_s)


async def run(
    tmp_path: Path, hosts: list[HiveHost], given: dict, naps: Naps | None = None, **settings
) -> SyncReport:
    wanted = Settings(base=tmp_path, cache=tmp_path / "cache", **settings)
    return await Sync(ScriptedConnector(given), wanted, sleep=naps or Naps()).run(hosts)


async def test_a_fresh_host_is_installed_with_one_probe_and_one_script(install, tmp_path: Path) -> None:
    transport = fresh()
    report = await run(tmp_path, [host("a", install)], {"a": [transport]})
    assert report.hives[0].status is HostOutcome.INSTALLED
    assert [step.name for step in report.hives[0].steps] == list(INSTALL)
    assert [answer for answer in transport.answers if answer] == [tmp_path / "skep"], "the file was sent once"
    assert transport.is_closed
    transport.assert_all_used()


async def test_what_is_brought_here_first_is_a_step_with_its_time(install, tmp_path: Path) -> None:
    sent = msgspec.structs.replace(install, via="controller")
    ticks = itertools.count()
    settings = Settings(base=tmp_path, cache=tmp_path / "cache")
    connector = ScriptedConnector({"a": [fresh()]})
    report = await Sync(connector, settings, sleep=Naps(), clock=lambda: float(next(ticks))).run(
        [host("a", sent)]
    )
    assert [step.name for step in report.hives[0].steps] == ["bring", *INSTALL]
    assert report.metrics.bring_s == report.hives[0].steps[0].seconds > 0


async def test_an_unreachable_host_is_unknown_after_its_retries_and_others_go_on(
    install, tmp_path: Path
) -> None:
    naps = Naps()
    dead = [HostUnreachable("no route")] * (RETRIES_MAX + 1)
    report = await run(tmp_path, [host("a", install), host("b", install)], {"a": dead, "b": [fresh()]}, naps)
    assert [row.status for row in report.hives] == [HostOutcome.UNKNOWN, HostOutcome.INSTALLED]
    assert report.hives[0].retries == RETRIES_MAX
    assert naps.slept_s == [1.0, 2.0, 4.0]
    assert not report.is_success
    assert (report.hives_failed, report.hives_installed) == (1, 1)


async def test_a_lost_connection_is_retried_on_a_new_one(install, tmp_path: Path) -> None:
    lost = ScriptedTransport()
    lost.expect_error(PROBE, ConnectionLost("dropped"))
    report = await run(tmp_path, [host("a", install)], {"a": [lost, fresh()]})
    assert report.hives[0].status is HostOutcome.INSTALLED
    assert report.retries == 1
    assert lost.is_closed


async def test_a_refused_login_is_not_retried(install, tmp_path: Path) -> None:
    naps = Naps()
    report = await run(tmp_path, [host("a", install)], {"a": [LoginRefused("no key")]}, naps)
    assert report.hives[0].error_code == "login_refused"
    assert naps.slept_s == []


async def test_a_failed_step_tells_its_name_and_its_last_lines(install, tmp_path: Path) -> None:
    transport = ScriptedTransport()
    transport.expect(PROBE, stdout=facts())
    transport.expect("flock", stdout=marks("send", "stage", failed="verify"), exit_status=77)
    report = await run(tmp_path, [host("a", install)], {"a": [transport]})
    row = report.hives[0]
    assert row.status is HostOutcome.FAILED
    assert row.steps[-1].name == "verify"
    assert row.steps[-1].outcome == "failed"
    assert "the reason" in row.error


@pytest.mark.parametrize(
    ("exit_status", "code"),
    [(75, "host_busy"), (76, "host_changed"), (0, "step_failed"), (139, "step_failed")],
)
async def test_every_other_end_of_the_script_is_a_failure(
    install, tmp_path: Path, exit_status: int, code: str
) -> None:
    def one() -> ScriptedTransport:
        transport = ScriptedTransport()
        transport.expect(PROBE, stdout=facts())
        transport.expect("flock", stdout=marks("stage"), exit_status=exit_status)
        return transport

    report = await run(tmp_path, [host("a", install)], {"a": [one() for _ in range(RETRIES_MAX + 1)]})
    assert report.hives[0].error_code == code


async def test_a_failed_gate_brings_the_old_version_back_and_stops_the_roll(install, tmp_path: Path) -> None:
    bad = ScriptedTransport()
    bad.expect(PROBE, stdout=facts(key="old", service="running"))
    bad.expect(
        "flock",
        stdout=marks("send", "stage", "verify", "configure", "drain", "switch", "service", failed="gate"),
        exit_status=77,
    )
    bad.expect("versions/old", stdout=marks("switch", "service", "gate", "resume"))
    waiting = ScriptedTransport()
    waiting.expect(PROBE, stdout=facts(key="old", service="running"))
    report = await run(tmp_path, [host("a", install), host("b", install)], {"a": [bad], "b": [waiting]})
    first, second = report.hives
    assert first.status is HostOutcome.FAILED
    assert [step.name for step in first.steps][-4:] == ["switch", "service", "gate", "resume"]
    assert "; old was put back" in first.error
    assert second.status is HostOutcome.SKIPPED
    assert "stopped at a" in second.error
    bad.assert_all_used()


async def test_a_version_that_could_not_be_put_back_is_told(install, tmp_path: Path) -> None:
    bad = ScriptedTransport()
    bad.expect(PROBE, stdout=facts(key="old"))
    done = ("send", "stage", "verify", "configure", "switch", "service")
    bad.expect("flock", stdout=marks(*done, failed="gate"), exit_status=77)
    bad.expect("versions/old", stdout=marks("switch", failed="service"), exit_status=77)
    (row,) = (await run(tmp_path, [host("a", install)], {"a": [bad]})).hives
    assert (row.steps[-1].name, row.steps[-1].outcome) == ("put-back", "failed")
    assert "old could not be put back: a: service failed" in row.error


async def test_what_is_no_longer_declared_is_uninstalled(install, tmp_path: Path) -> None:
    transport = ScriptedTransport()
    transport.expect(PROBE, stdout=facts(key="old"))
    transport.expect("flock", stdout=marks("uninstall"))
    sync = Sync(
        ScriptedConnector({"a": [transport]}),
        Settings(base=tmp_path, cache=tmp_path / "c", options=Options(remove_extra=True)),
    )
    report = await sync.run([], removed=[host("a", install)])
    assert report.hives[0].status is HostOutcome.REMOVED
    assert report.hives_removed == 1


async def test_a_missing_artifact_fails_every_host_that_needs_it(tmp_path: Path) -> None:
    install = Install(local=LocalInstall(path="nowhere"))

    def probed() -> ScriptedTransport:
        transport = ScriptedTransport()
        transport.expect(PROBE, stdout=facts())
        return transport

    report = await run(tmp_path, [host("a", install), host("b", install)], {"a": [probed()], "b": [probed()]})
    assert {row.error_code for row in report.hives} == {"artifact_missing"}
