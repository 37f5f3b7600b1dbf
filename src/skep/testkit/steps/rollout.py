"""Rollout: hosts of any level, what is declared for them, and what they then have."""

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from pytest_bdd import given, parsers, then, when

from skep.rollout.plan import Options
from skep.rollout.report import HostReport, SyncReport
from skep.spec.host import HiveHost, Install, LocalInstall, ReleaseInstall, WorkerDecl
from skep.testkit.rollout import RolloutHarness, assert_hive_installed

PROGRAM = """#!/bin/sh
case "$1" in
  --version) [ ! -e "$HOME/refuse" ] || exit 3; echo "skep {version}";;
  engine) [ ! -e "$HOME/broken-build" ] || {{ echo "compile error at line 7" >&2; exit 1; }}; echo "kind/key";;
esac
"""
HOSTS_MAX = 8


class Rollout:
    """What a scenario declares and what came of it."""

    def __init__(self, lab: Any, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.harness = RolloutHarness(lab, folder, keepalive_s=1.0)
        self.version, self.count = "1.0", 1
        self.workers: tuple[WorkerDecl, ...] = ()
        self.options: dict[str, bool] = {}
        self.install: Install | None = None
        self.reports: list[SyncReport] = []

    def hosts(self) -> list[HiveHost]:
        """Return the declarations."""
        install = self.install or Install(local=LocalInstall(path=str(self.program())))
        return [
            host.hive(install, auto_start=False, workers=self.workers)
            for host in self.lab.hosts[: self.count]
        ]

    def program(self) -> Path:
        """Return a skep of the declared version."""
        path = self.folder / f"skep {self.version}"
        path.write_text(PROGRAM.format(version=self.version))
        path.chmod(stat.S_IRWXU)
        return path

    async def sync(self, **more: Any) -> None:
        """Run one sync and keep its report."""
        options = Options(**self.options)
        self.reports.append(await self.harness.sync(self.hosts(), options=options, **more))

    @property
    def report(self) -> SyncReport:
        """The last report."""
        return self.reports[-1]

    def row(self, number: int = 0) -> HostReport:
        """Return a host's row of the last report."""
        return self.report.hives[number]

    def installed(self, number: int = 0) -> str:
        """Return the version that the host's skep link leads to, "" for none."""
        link = self.lab.hosts[number].home / ".local/share/skep/current"
        if not link.is_symlink():
            return ""
        folder = link.parent / link.readlink()
        text: str = (folder / "bin/skep").read_text()
        return text.partition('echo "skep ')[2].partition('"')[0]


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
    served = rollout.folder / "release"
    served.write_text("#!/bin/sh\necho skep 9\n")
    for host in rollout.lab.hosts:
        place = host.home / f".cache/skep/upload/{'a' * 16}"
        place.mkdir(parents=True)
        (place / "release.part").write_bytes(served.read_bytes())
    rollout.install = Install(release=ReleaseInstall(url="https://127.0.0.1:1/release", sha256="a" * 64))


@given("the host cannot be reached")
async def unreachable(rollout: Rollout) -> None:
    """Take the first host away."""
    await rollout.lab.hosts[0].aclose()


@given("the host's home cannot be written")
def unwritable(rollout: Rollout) -> None:
    """Put a file where skep's folder would be: it holds for root too, whom no mode stops."""
    home = rollout.lab.hosts[0].home
    (home / ".local").mkdir(parents=True, exist_ok=True)
    (home / ".local/share").write_text("in the way")


@given("the new program refuses to run")
def program_refuses(rollout: Rollout) -> None:
    """Make every program on the host fail its --version."""
    (rollout.lab.hosts[0].home / "refuse").touch()


@given("the engine's build fails")
def build_fails(rollout: Rollout) -> None:
    """Make engine builds fail on the host."""
    (rollout.lab.hosts[0].home / "broken-build").touch()


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
    text = (rollout.lab.hosts[0].home / ".local/share/skep/manifest.json").read_text()
    found = [f"{one['type']} {one['version']}" for one in json.loads(text).get("workers", [])]
    assert found == [one.strip() for one in workers.split(",") if one.strip(" -")]


@then("one sync should have done the work and both should agree")
def one_did_it(rollout: Rollout) -> None:
    """Hold that two syncs exclude each other."""
    outcomes = sorted(str(report.hives[0].status) for report in rollout.reports[-2:])
    assert outcomes in (["already_installed", "installed"], ["installed", "installed"]), rollout.reports
    assert rollout.installed() == rollout.version
