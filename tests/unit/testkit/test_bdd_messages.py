"""Cucumber Messages held against the published schema, by the types that the Cucumber project generates from it."""

import dataclasses
import enum
import json
import types
import typing

import cucumber_messages
import pytest
from cucumber_messages.json_converter import camel_to_snake

from skep.proof.bundle import Bundle
from skep.proof.records import Failure, Kind, ScenarioRecord, Status, StepRecord
from skep.testkit.bdd.proving import Prover
from skep.testkit.bdd.recording import ScenarioEvent

FEATURE = """@top
Feature: Boxes
  About boxes.

  Background:
    Given a box

  Rule: they hold
    @AB-CD-1001
    Scenario Outline: Things
      When I put <thing> into it
        | a | b |
        | 1 | 2 |
      Then it holds 1
        \"\"\"
        text
        \"\"\"
      Examples:
        | thing |
        | tea   |
        | milk  |
"""


def violations(value: object, kind: object, path: str = "") -> list[str]:
    """What the schema forbids: unknown or missing fields, other types, values outside an enumeration."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in {typing.Union, types.UnionType}:
        inner = [each for each in arguments if each is not type(None)]
        return violations(value, inner[0], path)
    if origin is list:
        if not isinstance(value, list):
            return [f"{path} is no list"]
        return [
            each
            for index, item in enumerate(value)
            for each in violations(item, arguments[0], f"{path}[{index}]")
        ]
    if dataclasses.is_dataclass(kind):
        return _of_object(value, kind, path)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return [] if value in {each.value for each in kind} else [f"{path}: {value!r} is no {kind.__name__}"]
    is_right = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    return [] if is_right else [f"{path}: {value!r} is no {kind}"]


def _of_object(value: object, kind: type, path: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path} is no object"]
    hints = typing.get_type_hints(kind, vars(cucumber_messages._messages))
    fields = {field.name: field for field in dataclasses.fields(kind)}
    given = {camel_to_snake(name): each for name, each in value.items()}
    found = [f"{path}.{name} is unknown" for name in given if name not in fields]
    found += [
        f"{path}.{name} is missing"
        for name, field in fields.items()
        if name not in given
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    for name, each in given.items():
        if name in fields:
            found += violations(each, hints[name], f"{path}.{name}")
    return found


def event(row: int, status: Status) -> ScenarioEvent:
    bad = Failure(type="AssertionError", message="no", trace="trace") if status is Status.FAILED else None
    texts = ("a box", "I put tea into it", "it holds 1")
    last = {Status.PASSED: Status.PASSED, Status.FAILED: Status.FAILED}.get(status, Status.SKIPPED)
    statuses = (Status.PASSED, Status.PASSED, last) if status is not Status.SKIPPED else (Status.SKIPPED,) * 3
    name = f"f.feature:10[{row + 1}]"
    return ScenarioEvent(
        record=ScenarioRecord(
            id=name, feature="Boxes", name="Things", status=status, duration_ms=3, uri="f.feature", line=10,
            started_at=1_700_000_000.25, error=bad,
        ),
        steps=tuple(
            StepRecord(scenario=name, index=index, keyword="Given", text=text, status=each, duration_ms=1.5, error=bad if each is Status.FAILED else None)
            for index, (text, each) in enumerate(zip(texts, statuses, strict=True))
        ),
        starts=(1_700_000_000.25,) * 3,
        definitions=(("a box", "steps.py", 3), ("I put {thing}", "steps.py", 7), ("", "", 0)),
        row=row,
    )  # fmt: skip


@pytest.fixture
def envelopes(tmp_path) -> list[dict]:
    (tmp_path / "f.feature").write_text(FEATURE)
    bundle = Bundle.create(tmp_path / "out", kind=Kind.BDD)
    prover = Prover(bundle, tmp_path)
    prover.scenario(event(0, Status.FAILED))
    prover.scenario(event(1, Status.SKIPPED))
    bundle.finish()
    return [json.loads(line) for line in (bundle.folder / "messages.ndjson").read_text().splitlines()]


def test_every_envelope_is_valid(envelopes) -> None:
    for envelope in envelopes:
        assert violations(envelope, cucumber_messages.Envelope) == []
        assert len(envelope) == 1


def test_the_stream_is_in_order_and_its_references_hold(envelopes) -> None:
    kinds = [next(iter(envelope)) for envelope in envelopes]
    assert kinds[:2] == ["meta", "testRunStarted"]
    assert kinds[-1] == "testRunFinished"
    assert kinds.count("pickle") == 2
    assert kinds.count("testCaseFinished") == 2
    pickles = {each["pickle"]["id"] for each in envelopes if "pickle" in each}
    cases = {each["testCase"]["id"]: each["testCase"] for each in envelopes if "testCase" in each}
    assert {case["pickleId"] for case in cases.values()} == pickles
    definitions = {each["stepDefinition"]["id"] for each in envelopes if "stepDefinition" in each}
    used = {one for case in cases.values() for step in case["testSteps"] for one in step["stepDefinitionIds"]}
    assert used == definitions
    identifiers = [each["testCaseStarted"]["id"] for each in envelopes if "testCaseStarted" in each]
    assert len(set(identifiers)) == 2
    assert envelopes[-1]["testRunFinished"]["success"] is False


def test_the_check_itself_can_fail(envelopes) -> None:
    broken = json.loads(json.dumps(envelopes[1]))
    broken["testRunStarted"]["timestamp"]["nanos"] = "soon"
    broken["testRunStarted"]["colour"] = "red"
    assert len(violations(broken, cucumber_messages.Envelope)) == 2
