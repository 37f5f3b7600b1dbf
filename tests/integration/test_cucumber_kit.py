"""Our messages held against the published JSON Schema, and against the Cucumber Compatibility Kit's golden samples.

    npm pack @cucumber/messages@34.2.1 @cucumber/compatibility-kit@30.0.0, unpack both, and
    SKEP_CUCUMBER_SCHEMA=…/messages.schema.json SKEP_CUCUMBER_KIT=…/features pytest tests/integration/test_cucumber_kit.py

Neither is ours, so neither is in this tree; without them the shape is still held by tests/unit/testkit/test_bdd_messages.py.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

KIT, SCHEMA = (os.environ.get(name, "") for name in ("SKEP_CUCUMBER_KIT", "SKEP_CUCUMBER_SCHEMA"))
pytestmark = [
    pytest.mark.skipif(
        not (KIT and SCHEMA),
        reason="needs SKEP_CUCUMBER_KIT and SKEP_CUCUMBER_SCHEMA (see the module's docstring)",
    ),
    pytest.mark.timeout(200),
]
SAMPLES = (
    "minimal", "backgrounds", "cdata", "data-tables", "doc-strings", "examples-tables", "rules", "rules-backgrounds", "skipped",
    "stack-traces", "regular-expression",
)  # fmt: skip
"""The rest is about what pytest-bdd has not: hooks, retries, attachments from steps, parameter types, Markdown, undefined
and ambiguous steps (which our lint refuses before anything runs), scenarios without steps."""
_OURS_ALONE = {"id", "astNodeId", "astNodeIds", "uri"}
STEPS = """
import pytest
from pytest_bdd import given, parsers, then, when

@given(parsers.parse("I have {count:d} cukes in my belly"))
def cukes(count): assert count
@given(parsers.parse("I have {count:d} <![CDATA[cukes]]> in my belly"))
def cdata(count): assert count
@given(parsers.parse('an order for "{thing}"'))
def order(thing): assert thing
@when("an action")
def action(): pass
@then("an outcome")
def outcome(): assert True is not False
@when("the following table is transposed:", target_fixture="transposed")
def transpose(datatable): return [list(row) for row in zip(*datatable)]
@then("it should be:")
def it_is(transposed, datatable): assert transposed == datatable
@given("a doc string:")
def doc(docstring): assert docstring
@given(parsers.parse("there are {count:d} cucumbers"), target_fixture="plate")
def plate(count): return {"count": count}
@given(parsers.parse("there are {count:d} friends"), target_fixture="friends")
def friends(count): return count
@when(parsers.parse("I eat {count:d} cucumbers"))
def eat(plate, count): plate["count"] -= count
@then(parsers.parse("I should have {count:d} cucumbers"))
def left(plate, count): assert plate["count"] == count
@then(parsers.parse("each person can eat {share:d} cucumbers"))
def shared(plate, friends, share): assert plate["count"] // (friends + 1) == share
@given(parsers.parse("the customer has {cents:d} cents"), target_fixture="shop")
def customer(cents): return {"cents": cents, "stock": 0, "sold": False}
@given("there are chocolate bars in stock")
def stock(shop): shop["stock"] = 5
@given("there are no chocolate bars in stock")
def no_stock(shop): shop["stock"] = 0
@when(parsers.parse("the customer tries to buy a {price:d} cent chocolate bar"))
def buy(shop, price): shop["sold"] = shop["stock"] > 0 and shop["cents"] >= price
@then("the sale should not happen")
def unsold(shop): assert not shop["sold"]
@then("the sale should happen")
def sold(shop): assert shop["sold"]
@given("a step that does not skip")
def runs(): pass
@given("a step that is skipped")
def never(): pass
@given("I skip a step")
def skips(): pytest.skip("")
@when("a step throws an exception")
def throws(): raise RuntimeError("BOOM")
@given(parsers.re("a cucumber(?: and a zucchini(?: and a gourd)?)?"))
def vegetables(): pass
"""


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("kit")
    for name in SAMPLES:
        shutil.copy(Path(KIT) / name / f"{name}.feature", folder)
    (folder / "conftest.py").write_text(STEPS)
    files = ", ".join(repr(f"{name}.feature") for name in SAMPLES)
    (folder / "test_kit.py").write_text(f"from pytest_bdd import scenarios\nscenarios({files})\n")
    argv = [sys.executable, "-m", "skep.cli.main", "prove", "--run-id", "kit", str(folder)]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=150, check=False)
    path = folder / ".proof_bundle" / "bdd" / "kit" / "messages.ndjson"
    assert done.returncode == 1, f"three scenarios of the kit fail on purpose\n{done.stdout}"
    return [json.loads(line) for line in path.read_text().splitlines()]


def golden(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(KIT) / name / f"{name}.ndjson").read_text().splitlines()]


def told(envelopes: list[dict[str, Any]], sample: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """What a stream says of a feature: its pickles in order, each with its steps and how they ended."""
    pickles = {
        each["pickle"]["id"]: each["pickle"]
        for each in envelopes
        if "pickle" in each and Path(each["pickle"]["uri"]).name == f"{sample}.feature"
    }
    cases = {each["testCase"]["id"]: each["testCase"] for each in envelopes if "testCase" in each}
    started = {
        each["testCaseStarted"]["id"]: each["testCaseStarted"]["testCaseId"]
        for each in envelopes
        if "testCaseStarted" in each
    }
    results: dict[str, dict[str, str]] = {}
    for each in envelopes:
        if "testStepFinished" in each:
            row = each["testStepFinished"]
            case = started[row["testCaseStartedId"]]
            results.setdefault(case, {})[row["testStepId"]] = row["testStepResult"]["status"]
    found = {}
    for identifier, case in cases.items():
        pickle = pickles.get(case["pickleId"])
        if pickle is not None:
            texts = {step["id"]: step["text"] for step in pickle["steps"]}
            found[case["pickleId"]] = (
                pickle["name"],
                [
                    (texts[step["pickleStepId"]], results[identifier][step["id"]])
                    for step in case["testSteps"]
                    if "pickleStepId" in step
                ],
            )
    return [found[key] for key in pickles if key in found]


def test_every_envelope_is_valid_against_the_published_schema(ours) -> None:
    schema = json.loads(Path(SCHEMA).read_text())
    validator = jsonschema_rs.validator_for(schema)
    for envelope in ours:
        assert [str(error) for error in validator.iter_errors(envelope)] == []
    assert list(validator.iter_errors({"testRunStarted": {"timestamp": "now"}})), "the schema refuses nothing"


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_is_told_as_the_kit_tells_it(ours, sample: str) -> None:
    expected = told(golden(sample), sample)
    assert expected
    assert told(ours, sample) == expected


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_samples_document_and_pickles_are_the_kits(ours, sample: str) -> None:
    for kind in ("gherkinDocument", "pickle"):
        mine, theirs = (
            [
                _without_ids(each[kind])
                for each in envelopes
                if kind in each and Path(each[kind]["uri"]).name == f"{sample}.feature"
            ]
            for envelopes in (ours, golden(sample))
        )
        assert mine == theirs


def _without_ids(value: Any) -> Any:
    """Leave out what may differ: ids, paths, and the blanks after a description, which the Python parser keeps."""
    if isinstance(value, dict):
        return {name: _without_ids(each) for name, each in value.items() if name not in _OURS_ALONE}
    if isinstance(value, list):
        return [_without_ids(each) for each in value]
    return value.rstrip() if isinstance(value, str) else value
