"""Levels, devices and backends: what runs where, what is skipped and why, and where levels disagree."""

import re
from pathlib import Path

import msgspec
import pytest

from skep.errors import InvalidConfig, InvalidInput
from skep.proof.bundle import Bundle
from skep.proof.diff import disagreements
from skep.proof.reading import BundleView, read_bundle
from skep.proof.records import Kind, ScenarioRecord, Status
from skep.testkit.levels import host_lab, skip_reason
from skep.testkit.prove import ProveOptions, resolved

P, F, S = Status.PASSED, Status.FAILED, Status.SKIPPED


@pytest.mark.parametrize(
    ("tags", "level", "devices", "says"),
    [
        (["level.netns"], "loopback", "", "it declares the level netns, and this run is at loopback"),
        (["level.loopback", "level.netns"], "loopback", "", ""),
        ([], "loopback", "", ""),
        (["fake_devices"], "", "real", "it names fake devices"),
        (["fake_devices"], "", "fake", ""),
    ],
)
def test_a_scenario_runs_where_it_can_and_a_skip_says_why(tags, level, devices, says) -> None:
    reason = skip_reason(tags, level=level, devices=devices)
    assert reason.startswith(says)
    assert bool(reason) == bool(says)


@pytest.mark.parametrize("level", ["vm", "ssh"])
def test_a_level_that_no_lab_makes_says_how_it_is_run_by_hand(tmp_path, level) -> None:
    how = "TEST_SSH_HOST=.* pytest (tests/integration/test_rollout_ssh.py)"
    with pytest.raises(InvalidInput, match=how) as told:
        host_lab(level, tmp_path)
    assert skip_reason([f"level.{level}"], level=level) == str(told.value)
    assert (Path(__file__).parents[3] / re.search(how, str(told.value))[1]).exists()


@pytest.mark.parametrize(
    "wrong", [{"level": "moon"}, {"level": "loopback,moon"}, {"backend": "x"}, {"devices": "x"}]
)
def test_an_option_that_is_not_known_is_refused(tmp_path, wrong) -> None:
    with pytest.raises(InvalidConfig, match="is not known: take"):
        resolved(ProveOptions(paths=(str(tmp_path),), **wrong), {})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"tags": "and and"}, "--tags and and is no expression of tags"),
        ({"run_id": "../x"}, "--run-id: run id '../x' cannot name a folder"),
        ({"paths": ("nowhere",)}, "nowhere does not exist"),
    ],
)
def test_what_no_run_can_be_made_of_is_refused_before_a_bundle_is_made(tmp_path, wrong, says) -> None:
    with pytest.raises(InvalidConfig, match=re.escape(says)):
        resolved(ProveOptions(**({"paths": (str(tmp_path),)} | wrong)), {})


@pytest.fixture
def view(tmp_path):
    def make(level: str, **statuses: Status) -> BundleView:
        with Bundle.create(tmp_path, kind=Kind.BDD, run_id=level) as bundle:
            for name, status in statuses.items():
                record = ScenarioRecord(
                    id=name, feature="F", name=name.upper(), status=status, duration_ms=1.0
                )
                bundle.scenario(msgspec.structs.replace(record, level=level))
            bundle.finish()
            return read_bundle(bundle.folder)

    return make


def test_levels_disagree_where_one_passes_and_another_fails(view) -> None:
    views = {"loopback": view("loopback", a=P, b=P, c=F), "netns": view("netns", a=P, b=F, c=F, d=F)}
    (found,) = disagreements(views)
    assert (found.scenario, found.name) == ("b", "B")
    assert found.statuses == {"loopback": "passed", "netns": "failed"}


def test_a_level_that_skips_has_no_opinion(view) -> None:
    assert disagreements({"loopback": view("loopback", a=P), "netns": view("netns", a=S)}) == []
