"""What is remembered of earlier runs: enough to notice a host that is no longer declared, and never one too many."""

import asyncio
from pathlib import Path

import pytest

from skep.errors import InvalidConfig
from skep.rollout import known
from skep.rollout.report import HostOutcome, HostReport, StepReport, SyncReport, summarize
from skep.spec.host import HiveHost, Install, LocalInstall


def host(alias: str, hostname: str = "", **more) -> HiveHost:
    install = Install(local=LocalInstall(path="x"))
    return HiveHost(alias=alias, hostname=hostname or alias, install=install, **more)


def told(**outcomes: HostOutcome) -> SyncReport:
    rows = [HostReport(alias=alias, status=status) for alias, status in outcomes.items()]
    return summarize(rows, 1.0, workers_declared={})


async def test_each_file_has_a_record_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = known.path_of(tmp_path / "one.toml", tmp_path), known.path_of(tmp_path / "two.toml", tmp_path)
    assert one != two
    monkeypatch.chdir(tmp_path)
    assert known.path_of(Path("one.toml"), tmp_path) == one
    await known.update(one, lambda _: [host("a")])
    assert known.read(one) == [host("a")]
    assert known.read(two) == []
    assert one.stat().st_mode & 0o777 == 0o600


def test_a_host_by_another_alias_or_another_name_is_still_declared() -> None:
    before = [host("gpu-1", "10.0.0.1"), host("gpu-2", "10.0.0.2"), host("gpu-3", "10.0.0.3")]
    declared = [host("renamed", "10.0.0.1"), host("gpu-2", "gpu-2.example")]
    assert known.undeclared(before, declared) == [host("gpu-3", "10.0.0.3")]


def test_what_was_never_reached_is_not_remembered_and_what_was_begun_is() -> None:
    report = told(good=HostOutcome.INSTALLED, typo=HostOutcome.UNKNOWN, refused=HostOutcome.FAILED)
    hosts = [host("good"), host("typo"), host("refused")]
    assert known.after([], hosts, report) == [host("good")]
    cut = HostReport(
        alias="cut", status=HostOutcome.FAILED, steps=(StepReport(name="stage", outcome="done"),)
    )
    assert known.after([], [host("cut")], summarize([cut], 1.0, workers_declared={})) == [host("cut")]


def test_a_known_host_that_fails_stays_known_and_one_that_was_removed_does_not() -> None:
    before = [host("down"), host("gone"), host("old-name", "same")]
    report = told(down=HostOutcome.UNKNOWN, gone=HostOutcome.REMOVED, name=HostOutcome.ALREADY)
    after = known.after(before, [host("down"), host("name", "same")], report)
    assert after == [host("down"), host("name", "same")]


def test_an_interrupted_run_may_have_changed_each_of_its_hosts() -> None:
    assert known.begun([host("a")], [host("b")]) == [host("a"), host("b")]


def test_a_damaged_record_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "record").write_text("x")
    with pytest.raises(InvalidConfig, match="remove it"):
        known.read(tmp_path / "record")


async def test_a_record_without_a_place_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file/record.json", Path("/proc/none/record.json")):
        with pytest.raises(InvalidConfig, match="set SKEP_HOME"):
            await known.update(path, lambda _: [])


async def test_runs_at_once_lose_nothing_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "rollout" / "record.json"
    aliases = [f"h{number}" for number in range(10)]

    async def one(alias: str) -> None:
        await known.update(path, lambda now: [*now, host(alias)])

    async with asyncio.TaskGroup() as group:
        for alias in aliases:
            group.create_task(one(alias))
    assert sorted(found.alias for found in known.read(path)) == aliases
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["record.json", "record.lock"]
