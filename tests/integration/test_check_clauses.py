"""Each clause of `skep check`, proved by mutation: it passes on a server that keeps it, and fails on one that breaks just it."""

import sys

import pytest

from skep.errors import InvalidConfig
from skep.testkit.check.clause import AREAS, CLAUSES, chosen
from skep.testkit.check.probe import Target
from skep.testkit.check.reference import Reference
from skep.testkit.check.run import CheckOptions, check
from skep.testkit.check.verdict import Finding, Verdict

KEY = "a-key"
IN_PROCESS = [one.id for one in CLAUSES.values() if not one.needs_process]
WITH_PROCESS = [one.id for one in CLAUSES.values() if one.needs_process]


async def finding(clause: str, *faults: str) -> Finding:
    """Run one clause against the reference server with these faults."""
    async with Reference(faults=frozenset(faults), key=KEY) as server:
        target = Target(url=server.url, model="reference", api_key=KEY, patience_s=10)
        report = await check(CheckOptions(target=target, only=(clause,), is_chaos=True))
    (found,) = report.findings
    return found


async def finding_of_process(clause: str, *faults: str) -> Finding:
    """The same with a server that is a process of the check's own."""
    argv = [sys.executable, "-m", "skep.testkit.check.reference", "--port", "{port}"]
    command = " ".join([*argv, *(f"--fault {one}" for one in faults)])
    options = CheckOptions(target=Target(url="", patience_s=10), only=(clause,), command=command)
    (found,) = (await check(options)).findings
    return found


@pytest.mark.parametrize("clause", IN_PROCESS)
async def test_a_clause_passes_on_the_reference_and_fails_on_its_mutant(clause: str) -> None:
    kept = await finding(clause)
    assert kept.verdict is Verdict.PASS, kept
    broken = await finding(clause, clause)
    assert broken.verdict is Verdict.FAIL, broken
    assert broken.detail


@pytest.mark.slow
@pytest.mark.parametrize("clause", WITH_PROCESS)
async def test_a_clause_about_processes_passes_on_the_reference_and_fails_on_its_mutant(
    clause: str, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kept = await finding_of_process(clause)
    assert kept.verdict is Verdict.PASS, kept
    broken = await finding_of_process(clause, clause)
    assert broken.verdict is Verdict.FAIL, broken


def test_every_clause_has_a_rule_a_source_and_an_area_of_the_run() -> None:
    for one in CLAUSES.values():
        assert one.area in AREAS
        assert one.rule
        assert one.source
    assert {one.area for one in CLAUSES.values()} == set(AREAS)


def test_clauses_are_chosen_by_area_id_and_pattern() -> None:
    assert [one.id for one in chosen(("stream.one-done",))] == ["stream.one-done"]
    assert {one.area for one in chosen(("stream", "cancel"))} == {"stream", "cancel"}
    assert all("health" in one.id for one in chosen(("*health*",)))
    assert not [one for one in chosen(skip=("stream",)) if one.area == "stream"]
    with pytest.raises(InvalidConfig, match="areas are"):
        chosen(("streams",))
