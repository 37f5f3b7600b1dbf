"""Rollout: hosts of any level, what is declared for them, and what they then have."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from pytest_bdd import given, parsers, then, when

from skep.spec.host import GitInstall, Install, ReleaseInstall, WorkerDecl
from skep.testkit.fleet.hub import FakeHub
from skep.testkit.hosts.loopback import LoopbackLab
from skep.testkit.hosts.scripted import ScriptedLab
from skep.testkit.rollout import assert_hive_installed
from skep.testkit.sources import make_repository
from skep.testkit.steps.rollout_world import FULL, Rollout


@pytest.fixture
def rollout(hosts: Any, tmp_path: Path) -> Rollout:
    """Hosts at the level that the run asks for, and what is declared for them."""
    return Rollout(hosts, tmp_path)


@given(parsers.parse("{count:d} fresh host(s)"))
def fresh_hosts(rollout: Rollout, count: int) -> None:
    """Declare so many hosts of the lab."""
    rollout.count = count


@given(parsers.parse('skep "{version}" is declared'))
@when(parsers.parse('skep "{version}" is declared'))
def declare(rollout: Rollout, version: str) -> None:
    """Declare a version to install from a local binary."""
    rollout.version, rollout.install = version, None


@given(parsers.parse('skep "{version}" is installed'))
async def installed(rollout: Rollout, version: str) -> None:
    """Bring the hosts to a version first."""
    rollout.version = version
    await rollout.sync()
    assert rollout.report.is_success, rollout.report


@given(parsers.parse('the worker "{kind}" of version "{version}" with features "{features}" is declared'))
def declare_worker(rollout: Rollout, kind: str, version: str, features: str) -> None:
    """Add an engine to every host."""
    chosen = tuple(one.strip() for one in features.split(",") if one.strip())
    rollout.workers = (*rollout.workers, WorkerDecl(type=kind, version=version, features=chosen))


@given("no worker is declared")
@when("no worker is declared")
def declare_no_worker(rollout: Rollout) -> None:
    """Take every engine out of the declaration."""
    rollout.workers = ()


@given(parsers.parse("the option {name}"))
@when(parsers.parse("the option {name}"))
def option(rollout: Rollout, name: str) -> None:
    """Ask for force, remove_extra or rollback."""
    rollout.options[name] = True


@given("a release with a wrong checksum is declared")
def wrong_checksum(rollout: Rollout) -> None:
    """Declare a release whose file is not the one that its checksum names."""
    rollout.install = Install(release=ReleaseInstall(url="https://127.0.0.1:1/release", sha256="a" * 64))
    if rollout.scripted:
        rollout.scripted.faults["download"] = "checksum wrong"
        return
    for host in rollout.lab.hosts:
        place = host.home / f".cache/skep/upload/{'a' * 16}"
        place.mkdir(parents=True)
        (place / "release.part").write_text("#!/bin/sh\necho skep 9\n")


@given("the host cannot be reached")
async def unreachable(rollout: Rollout) -> None:
    """Take the first host away."""
    await rollout.lab.hosts[0].aclose()


@given("the host refuses our key")
def refuses(rollout: Rollout) -> None:
    """Take our key from the first host's list."""
    if hasattr(rollout.lab.hosts[0], "is_welcome"):
        rollout.lab.hosts[0].is_welcome = False
    else:
        (rollout.lab.hosts[0].home / ".ssh/authorized_keys").write_text("")


@given("the host's home cannot be written")
def unwritable(rollout: Rollout) -> None:
    """Put a file where skep's folder would be: it holds for root too, whom no mode stops."""
    if rollout.scripted:
        rollout.scripted.is_writable = False
        return
    home = rollout.lab.hosts[0].home
    (home / ".local").mkdir(parents=True, exist_ok=True)
    (home / ".local/share").write_text("in the way")


@given("the host's disk is full")
def disk_full(rollout: Rollout) -> None:
    """Leave the first host no room."""
    if rollout.scripted:
        rollout.scripted.free_kib = 100
    else:
        rollout.pretends("df", FULL)


@given(parsers.parse('the host has no "{tool}"'))
def no_tool(rollout: Rollout, tool: str) -> None:
    """Take a program away."""
    rollout.lacks(tool)


@given("the host's clock is years behind")
def clock_skew(rollout: Rollout) -> None:
    """Make the host think that it is 1970."""
    if rollout.scripted:
        rollout.scripted.time_s = 0
    else:
        rollout.pretends("date", "#!/bin/sh\necho 0\n")


@given(parsers.parse('the host has "{device}"'))
def has_device(rollout: Rollout, device: str) -> None:
    """Give the first host a device, as the probe looks for it."""
    if rollout.scripted:
        rollout.scripted.uname = "Darwin arm64" if device == "metal" else rollout.scripted.uname
        rollout.scripted.gpus |= {device} - {"metal"}
    elif device == "metal":
        is_a(rollout, "Darwin arm64")
    else:
        rollout.pretends("nvidia-smi", "#!/bin/sh\n")


@given(parsers.parse('the host is a "{uname}"'))
def is_a(rollout: Rollout, uname: str) -> None:
    """Make the host another kind of machine than it is, as `uname -sm` tells it."""
    if rollout.scripted:
        rollout.scripted.uname = uname
    else:
        rollout.pretends("uname", f"#!/bin/sh\necho {uname}\n")


@given("the host has uv and no Python")
def only_uv(rollout: Rollout) -> None:
    """Leave the host a uv that could download an interpreter, and none to begin with."""
    if rollout.scripted:
        rollout.scripted.tools.add("uv")
        rollout.scripted.pythons.clear()
    else:
        rollout.lacks("python*")
        rollout.pretends("uv", "#!/bin/sh\nexit 64\n", alone=True)


@given(parsers.parse('the connection is cut when the host begins "{step}"'))
def cut_at(rollout: Rollout, step: str) -> None:
    """Drop the connection in the middle of a step, once."""
    rollout.cut_at(step)


@given(parsers.parse('skep "{version}" is declared by "{method}"'))
def declare_by(rollout: Rollout, version: str, method: str, request: pytest.FixtureRequest) -> None:
    """Declare one of the ways to install: git or release, by the host or through the controller."""
    if method.endswith("through the controller") or rollout.scripted is None:
        _needs_sources(rollout)
    via = "controller" if method.endswith("through the controller") else "host"
    if method.startswith("git"):
        url = make_repository(rollout.folder / f"repo {version}")
        rollout.install = Install(git=GitInstall(repo=url, ref=f"v{version}"), via=via)  # type: ignore[arg-type]
        return
    hub = FakeHub()
    request.addfinalizer(hub.close)
    rollout.version = version
    hub.add(f"skep-{version}", rollout.program())
    release = ReleaseInstall(url=f"{hub.url}/skep-{version}", sha256=hub.files[f"skep-{version}"].sha256)
    rollout.install = Install(release=release, via=via)  # type: ignore[arg-type]


def _needs_sources(rollout: Rollout) -> None:
    if not isinstance(rollout.lab, LoopbackLab | ScriptedLab):
        pytest.skip("this level's hosts do not reach files and servers of the machine that tests")


@given("a repository that is not there is declared")
def no_repository(rollout: Rollout) -> None:
    """Declare a repository that nobody has."""
    url = (rollout.folder / "nowhere").as_uri()
    rollout.install = Install(git=GitInstall(repo=url, ref="v1.0"))


@given("the new program refuses to run")
def program_refuses(rollout: Rollout) -> None:
    """Make every program on the first host fail its --version."""
    rollout.fails_at("verify", "--version ended with 3", marker="refuse")


@given("the engine's build fails")
def build_fails(rollout: Rollout) -> None:
    """Make engine builds fail on the first host."""
    rollout.fails_at("engines", "compile error at line 7", marker="broken-build")


@when("the trouble is over")
def over(rollout: Rollout) -> None:
    """Make the first host well again."""
    if rollout.scripted:
        rollout.scripted.faults.clear()
        return
    for marker in ("refuse", "broken-build"):
        (rollout.lab.hosts[0].home / marker).unlink(missing_ok=True)


@given("the login shell prints a banner")
def banner(rollout: Rollout) -> None:
    """Make the shell noisy, where the lab's hosts let us."""
    for host in rollout.lab.hosts:
        if hasattr(host, "login_noise"):
            host.login_noise = "Welcome! begin\tend\n$(reboot)"
        else:
            (host.home / ".bashrc").write_text("echo 'Welcome! begin end'\n")


@when("I sync")
async def sync(rollout: Rollout) -> None:
    """Run skep sync."""
    await rollout.sync()


@when("I sync twice at once")
async def sync_twice(rollout: Rollout) -> None:
    """Run two syncs of the same hosts side by side."""
    await asyncio.gather(rollout.sync(), rollout.sync())


@when("I look at what would be done")
async def dry_run(rollout: Rollout) -> None:
    """Run skep sync --dry-run."""
    await rollout.sync(dry_run=True)


@then(parsers.parse('every host should be "{status}"'))
def every_status(rollout: Rollout, status: str) -> None:
    """Hold the status of every row."""
    assert [str(row.status) for row in rollout.report.hives] == [status] * rollout.count, rollout.report


@then(parsers.parse('the host should be "{status}" with the code "{code}"'))
def status_and_code(rollout: Rollout, status: str, code: str) -> None:
    """Hold how the first host ended."""
    assert (str(rollout.row().status), rollout.row().error_code) == (status, code), rollout.row()


@then(parsers.parse('the other hosts should be "{status}"'))
def others(rollout: Rollout, status: str) -> None:
    """Hold that one host's trouble is no other's."""
    assert {str(row.status) for row in rollout.report.hives[1:]} == {status}, rollout.report


@then(parsers.parse('the error should say "{text}"'))
def error_says(rollout: Rollout, text: str) -> None:
    """Hold what a person reads."""
    assert text in rollout.row().error, rollout.row().error


@then(parsers.parse('every host should run skep "{version}"'))
async def every_host_runs(rollout: Rollout, version: str) -> None:
    """Hold the installed version, linked and runnable."""
    for number, host in enumerate(rollout.hosts()):
        assert rollout.installed(number) == version
        await assert_hive_installed(rollout.harness, host)


@then(parsers.parse('the host should still have skep "{version}"'))
def still_has(rollout: Rollout, version: str) -> None:
    """Hold that a failure changed nothing."""
    assert rollout.installed() == version


@then("the host should have nothing of skep")
def nothing(rollout: Rollout) -> None:
    """Hold that a host is untouched."""
    assert rollout.installed() == ""


@then(parsers.parse('the manifest should list the workers "{workers}"'))
def manifest_lists(rollout: Rollout, workers: str) -> None:
    """Hold what the manifest says; "-" is none."""
    found = [f"{one['type']} {one['version']}" for one in json.loads(rollout.manifest()).get("workers", [])]
    assert found == [one.strip() for one in workers.split(",") if one.strip(" -")]


@then("one sync should have done the work and both should agree")
def one_did_it(rollout: Rollout) -> None:
    """Hold that two syncs exclude each other."""
    outcomes = sorted(str(report.hives[0].status) for report in rollout.reports[-2:])
    assert outcomes in (["already_installed", "installed"], ["installed", "installed"]), rollout.reports
    assert rollout.installed() == rollout.version


@then(parsers.parse('the status should be "{status}"'))
async def status_is(rollout: Rollout, status: str) -> None:
    """Hold what skep package-status says."""
    found = await rollout.harness.status(rollout.hosts())
    assert found.status == status, found


@then(parsers.parse("the report should count {failed:d} failed of {total:d}"))
def counts(rollout: Rollout, failed: int, total: int) -> None:
    """Hold the sums and the rate that a report is compared by."""
    report = rollout.report
    assert (report.hives_failed, len(report.hives)) == (failed, total), report
    assert report.metrics.success_rate == round((total - failed) / total, 4)
    assert sum(report.metrics.failure_modes.values()) == failed


@then(parsers.parse("the report should count {count:d} recovered host(s)"))
def recovered(rollout: Rollout, count: int) -> None:
    """Hold that a retry is told."""
    assert rollout.report.metrics.recovered == count, rollout.report
    assert rollout.report.retries >= count


@when(parsers.parse('skep sync is ended by "{signal_name}" when the host begins "{step}"'))
async def ended_by_signal(rollout: Rollout, signal_name: str, step: str) -> None:
    """Run the command as people do, and end it in the middle."""
    rollout.exit_code = await rollout.command_ended_at(step, signal.Signals[signal_name])


@then(parsers.parse("the command should have ended with {code:d}"))
def ended_with(rollout: Rollout, code: int) -> None:
    """Hold the exit code; a signal's is negative."""
    assert rollout.exit_code == code
