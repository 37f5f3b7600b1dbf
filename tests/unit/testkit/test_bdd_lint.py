"""For each rule a small suite that plain pytest-bdd calls green, and that is red here, with file and line."""

from dataclasses import dataclass, field

import pytest

from skep.testkit.bdd import lint

pytest_plugins = ["pytester"]

BIND = 'from pytest_bdd import scenarios\n\nscenarios("a.feature")\n'
STEPS = """
    from pytest_bdd import given, parsers, then, when

    @given("a box", target_fixture="box")
    def box():
        return []

    @when(parsers.parse("I put {thing} into it"))
    def put(box, thing):
        box.append(thing)
"""
THEN = """
    @then(parsers.parse("it holds {count:d}"))
    def holds(box, count):
        assert len(box) == count
"""
FEATURE = """
Feature: Boxes
  Scenario: One
    Given a box
    When I put tea into it
    Then it holds 1
"""


@dataclass
class Case:
    """A suite, and what is found in it. `runs`: plain pytest-bdd passes it; else it collects it without a word."""

    rule: str
    place: str
    steps: str = STEPS + THEN
    feature: str = FEATURE
    files: dict[str, str] = field(default_factory=dict)
    ini: str = ""
    runs: bool = True
    says: str = ""


CASES = {
    "undefined step": Case(
        "undefined-step",
        "a.feature:7",
        feature=FEATURE + '    And the label says "tea" 3 times\n',
        runs=False,
        says="@then(parsers.parse('the label says \"{tea}\" {number:d} times'))",
    ),
    "undefined in one row of an outline": Case(
        "undefined-step",
        "a.feature:6",
        feature="""
Feature: Boxes
  Scenario Outline: Rows
    Given a box
    When I put tea into it
    Then it <what>
    Examples:
      | what    |
      | holds 1 |
      | is wet  |
""",
        runs=False,
        says="row 2",
    ),
    "an outline without a row": Case(
        "empty-outline",
        "a.feature:8",
        feature=FEATURE
        + """
  Scenario Outline: Rows
    Given a box
    When I put <thing> into it
    Then it holds 1
    Examples:
      | thing |
""",
    ),
    "ambiguous step": Case(
        "ambiguous-step",
        "a.feature:5",
        steps=STEPS
        + THEN
        + '\n    @when("I put tea into it")\n    def put_tea(box):\n        box.append("tea")\n',
        says="2 definitions",
    ),
    "async step that nothing awaits": Case(
        "async-step",
        "conftest.py:7",
        steps=(STEPS + THEN)
        .replace("    def put(box, thing):", "    async def put(box, thing):")
        .replace("len(box) == count", "len(box) <= count"),
        ini="[pytest]\nskep_async_steps = false\nfilterwarnings = ignore\n",
    ),
    "a Then that asserts nothing": Case(
        "hollow-then",
        "conftest.py:11",
        steps=STEPS + THEN.replace("assert len(box) == count", "len(box) == count"),
    ),
    "a Then whose helper in another module only returns": Case(
        "hollow-then",
        "conftest.py:12",
        steps="\n    import helpers"
        + STEPS
        + THEN.replace("assert len(box) == count", "helpers.assert_count(box, 5)"),
        files={"helpers.py": "def assert_count(box, count):\n    return len(box) == count\n"},
        ini="[pytest]\npythonpath = .\n",
    ),
    "a Then whose assertion is suppressed": Case(
        "hollow-then",
        "conftest.py:12",
        steps="\n    import contextlib"
        + STEPS
        + THEN.replace(
            "assert len(box) == count",
            "with contextlib.suppress(AssertionError): assert len(box) == count + 1",
        ),
    ),
    "a Then that catches its own assertion": Case(
        "hollow-then",
        "conftest.py:11",
        steps=STEPS
        + THEN.replace(
            "assert len(box) == count",
            "try: assert len(box) == count + 1\n        except AssertionError: pass",
        ),
    ),
    "a Then that asserts the opposite of a constant": Case(
        "hollow-then",
        "conftest.py:11",
        steps=STEPS + THEN.replace("assert len(box) == count", "assert not False"),
    ),
    "a Then that asserts a list with its comparison inside": Case(
        "hollow-then",
        "conftest.py:11",
        steps=STEPS + THEN.replace("assert len(box) == count", "assert [len(box) == count + 1]"),
        ini="[pytest]\nfilterwarnings = ignore\n",
    ),
    "a Then that asserts a constant": Case(
        "hollow-then",
        "conftest.py:11",
        steps=STEPS + THEN.replace("assert len(box) == count", "assert (len(box) == count + 1, 'wrong')"),
        ini="[pytest]\nfilterwarnings = ignore\n",
    ),
    "a Then whose helper asserts nothing": Case(
        "hollow-then",
        "conftest.py:14",
        steps=STEPS
        + "\n    def assert_count(box, count):\n        return len(box) == count\n"
        + THEN.replace("assert len(box) == count", "assert_count(box, count)"),
    ),
    "a step that no feature uses": Case(
        "unused-step",
        "conftest.py:15",
        steps=STEPS + THEN + '\n    @when("I shake it")\n    def shake():\n        pass\n',
    ),
    "a feature that no test binds": Case(
        "unbound-feature", "b.feature:1", files={"b.feature": FEATURE.replace("Boxes", "Bags")}
    ),
    "a scenario hidden by another of its name": Case(
        "unbound-scenario",
        "a.feature:3",
        feature=FEATURE
        + "\n  Scenario: One\n    Given a box\n    When I put milk into it\n    Then it holds 1\n",
    ),
    "a requirement without a scenario": Case(
        "unproved-requirement",
        "table.md:2",
        feature=FEATURE.replace("  Scenario", "  @AB-BOX-1001\n  Scenario"),
        files={"needs/table.md": "| AB-BOX-1001 | it holds |\n| AB-BOX-1002 | it closes |\n"},
        ini="[pytest]\nskep_requirements = needs\n",
    ),
    "a requirement that no table has": Case(
        "unknown-requirement",
        "a.feature:4",
        feature=FEATURE.replace("  Scenario", "  @AB-BOX-1001 @AB-BOX-9999\n  Scenario"),
        files={"needs/table.md": "| AB-BOX-1001 | it holds |\n"},
        ini="[pytest]\nskep_requirements = needs\nfilterwarnings = ignore\n",
        says="@AB-BOX-9999",
    ),
    "a scenario without a requirement": Case(
        "untraced-scenario",
        "a.feature:3",
        files={"needs/table.md": "| AB-BOX-1001 | it holds |\n"},
        ini="[pytest]\nskep_requirements = needs\n",
    ),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request, pytester) -> Case:
    case: Case = request.param
    pytester.makeconftest(case.steps)
    files = {"a.feature": case.feature, "test_a.py": BIND, **case.files}
    for name, text in files.items():
        path = pytester.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    pytester.makeini(case.ini or "[pytest]\n")
    return case


def run(pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:asyncio", *arguments)


def test_green_under_plain_pytest_bdd_and_red_here(pytester, case) -> None:
    plain = run(
        pytester,
        "-p",
        "no:skep.testkit.plugin",
        "-W",
        "ignore::pytest.PytestConfigWarning",
        *([] if case.runs else ["--collect-only"]),
    )
    assert plain.ret == 0, plain.stdout.str()
    ours = run(pytester, "--skep-bdd", ".")
    assert ours.ret == 1
    found = [line for line in ours.outlines if f"{case.place}: {case.rule}:" in line]
    assert found, ours.stdout.str()
    assert case.says in ours.stdout.str()
    assert ours.parseoutcomes().get("passed", 0) == 0, "scenarios ran, though the suite cannot be trusted"


def test_every_rule_that_the_lint_lists_has_a_suite() -> None:
    rows = [line.split("|")[1] for line in lint.__doc__.splitlines() if line.startswith("|")]
    listed = {rule.strip() for row in rows[2:] for rule in row.split(",")}
    assert len(listed) > 5
    assert {each.rule for each in CASES.values()} == listed


def test_the_same_suites_are_red_under_xdist_and_in_a_dry_run(pytester) -> None:
    case = CASES["ambiguous step"]
    pytester.makeconftest(case.steps)
    (pytester.path / "a.feature").write_text(case.feature)
    (pytester.path / "test_a.py").write_text(BIND)
    spread = run(pytester, "--skep-bdd", "-n", "2", ".")
    spread.assert_outcomes(failed=1)
    spread.stdout.fnmatch_lines([f"*{case.place}: {case.rule}*"])
    dry = run(pytester, "--skep-bdd", "--collect-only", ".")
    assert dry.ret == 1
    dry.stdout.fnmatch_lines([f"*{case.place}: {case.rule}*"])


def test_a_then_whose_assertion_is_not_reached_fails_when_it_runs(pytester) -> None:
    pytester.makeconftest(
        STEPS + THEN.replace("assert len(box) == count", "if box[5:]: assert len(box) == count")
    )
    (pytester.path / "a.feature").write_text(FEATURE)
    (pytester.path / "test_a.py").write_text(BIND)
    assert run(pytester, "-p", "no:skep.testkit.plugin").ret == 0
    ours = run(pytester, "--skep-bdd", ".")
    ours.assert_outcomes(failed=1)
    ours.stdout.fnmatch_lines(["*HollowThen: *conftest.py:*ended without having asserted anything*"])


def test_an_async_step_is_awaited_and_its_clean_up_runs(pytester) -> None:
    pytester.makeconftest(
        """
    import asyncio
    from pytest_bdd import given, then

    @given("a box", target_fixture="box")
    async def box():
        found = []
        task = asyncio.create_task(later(found))
        yield found
        await task
        print("emptied after", len(found))

    async def later(found):
        await asyncio.sleep(0.05)
        found.append("late")

    @then("it holds what came between the steps")
    async def holds(box):
        for _ in range(200):
            if box:
                break
            await asyncio.sleep(0.01)
        assert box == ["late"]
    """
    )
    (pytester.path / "a.feature").write_text(
        "Feature: Boxes\n  Scenario: One\n    Given a box\n    Then it holds what came between the steps\n"
    )
    (pytester.path / "test_a.py").write_text(BIND)
    ours = run(pytester, "--skep-bdd", "-s", ".")
    ours.assert_outcomes(passed=1)
    ours.stdout.fnmatch_lines(["*emptied after 1*"])


def test_a_wrong_async_then_fails(pytester) -> None:
    pytester.makeconftest(
        'from pytest_bdd import then\n\n@then("two is three")\nasync def wrong():\n    assert 2 == 3\n'
    )
    (pytester.path / "a.feature").write_text("Feature: F\n  Scenario: S\n    Then two is three\n")
    (pytester.path / "test_a.py").write_text(BIND)
    assert run(pytester, "-p", "no:skep.testkit.plugin", "-W", "ignore").ret == 0, (
        "plain pytest-bdd awaits it now"
    )
    run(pytester, "--skep-bdd", ".").assert_outcomes(failed=1)


def test_the_plugin_is_inert_where_it_is_not_asked_for(pytester) -> None:
    pytester.makeconftest(STEPS + THEN + '\n    @when("I shake it")\n    def shake():\n        pass\n')
    (pytester.path / "a.feature").write_text(FEATURE)
    (pytester.path / "test_a.py").write_text(BIND)
    run(pytester).assert_outcomes(passed=1)


WITHOUT_BDD = """
    import sys

    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "pytest_bdd":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Missing())
"""


@pytest.fixture
def without_bdd(pytester, monkeypatch) -> tuple[str, ...]:
    """A suite of plain tests, and what runs it as where pytest-bdd is not installed."""
    pytester.makepyfile(without_bdd=WITHOUT_BDD)
    pytester.makepyfile(
        test_plain="""
        import pytest

        def test_it_is_not_here():
            with pytest.raises(ModuleNotFoundError):
                import pytest_bdd
        """
    )
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))
    return ("-p", "without_bdd", "-p", "no:pytest-bdd")


def test_the_plugin_is_inert_where_pytest_bdd_is_missing(pytester, without_bdd) -> None:
    plain = run(pytester, *without_bdd, "--skep-ledger", ".")
    plain.assert_outcomes(passed=1)
    assert plain.ret == 0
    assert plain.stderr.str() == ""


def test_a_suite_that_asks_for_features_where_pytest_bdd_is_missing_is_told_what_to_install(
    pytester, without_bdd
) -> None:
    asked = run(pytester, *without_bdd, "--skep-bdd", ".")
    assert asked.ret == pytest.ExitCode.USAGE_ERROR
    asked.stderr.fnmatch_lines(["ERROR: *pytest-bdd is missing: pip install*"])
    assert "INTERNALERROR" not in asked.stdout.str() + asked.stderr.str()


def test_a_part_of_a_suite_is_not_blamed_for_the_rest(pytester) -> None:
    pytester.makeconftest(STEPS + THEN + '\n    @when("I shake it")\n    def shake():\n        pass\n')
    (pytester.path / "a.feature").write_text(FEATURE)
    (pytester.path / "test_a.py").write_text(BIND)
    run(pytester, "--skep-bdd", "test_a.py").assert_outcomes(passed=1)
