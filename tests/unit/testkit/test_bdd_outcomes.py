"""However a step ends, the bundle says so: what passes by pytest-bdd's own hooks too."""

import json

import pytest

pytest_plugins = ["pytester"]

STEPS = """
    import pytest
    from pytest_bdd import given, then

    @given("a start")
    def start():
        pass

    @given("it is skipped")
    def skipped():
        pytest.skip("not here")

    @given("it fails by name")
    def fails():
        pytest.fail("by name")

    @given("it breaks")
    def breaks():
        raise ValueError("broken")

    @then("it holds")
    def holds():
        assert True is not False
"""
FEATURE = """
Feature: Ends
  Scenario Outline: One
    Given a start
    And <what>
    Then it holds
    Examples:
      | what             |
      | a start          |
      | it is skipped    |
      | it fails by name |
      | it breaks        |
"""


@pytest.mark.parametrize("processes", [(), ("-n", "1")])
def test_each_way_of_ending_is_recorded_with_its_step(pytester, processes) -> None:
    pytester.makeconftest(STEPS)
    (pytester.path / "a.feature").write_text(FEATURE)
    (pytester.path / "test_a.py").write_text('from pytest_bdd import scenarios\nscenarios("a.feature")\n')
    result = pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", "-p", "no:asyncio", "--skep-bdd", "--skep-proof", "out", "--skep-run-id", "r", *processes, "."
    )  # fmt: skip
    result.assert_outcomes(passed=1, skipped=1, failed=2)
    lines = (pytester.path / "out/bdd/r/scenarios.ndjson").read_text().splitlines()[1:]
    scenarios = {row["id"]: row for row in map(json.loads, lines)}
    assert [scenarios[f"a.feature:3[{row}]"]["status"] for row in (1, 2, 3, 4)] == [
        "passed", "skipped", "failed", "failed"
    ]  # fmt: skip
    assert scenarios["a.feature:3[2]"]["reason"] == "not here"
    assert "by name" in scenarios["a.feature:3[3]"]["error"]["message"]
    steps: dict[str, list[str]] = {}
    for line in (pytester.path / "out/bdd/r/steps.ndjson").read_text().splitlines()[1:]:
        row = json.loads(line)
        steps.setdefault(row["scenario"], []).append(row["status"])
    assert steps == {
        "a.feature:3[1]": ["passed"] * 3,
        "a.feature:3[2]": ["passed", "skipped", "skipped"],
        "a.feature:3[3]": ["passed", "failed", "skipped"],
        "a.feature:3[4]": ["passed", "failed", "skipped"],
    }
