"""What we use of pytest-bdd and pytest though it is private. When a release changes it, these fail first, and say what."""

import importlib
import inspect
from importlib.metadata import version

import pytest
from pytest_bdd import compat, given, parser, parsers, steps


def test_the_release_is_one_that_was_tried() -> None:
    assert version("pytest-bdd").split(".")[0] == "9"


@pytest.mark.parametrize(
    ("place", "names"),
    [
        (compat, ["get_fixture_names", "getfixturedefs"]),
        (
            importlib.import_module("pytest_bdd.scenario"),
            ["iterparentnodeids", "scenario_wrapper_template_registry"],
        ),
        (steps, ["StepFunctionContext", "StepNamePrefix", "step_function_context_registry"]),
        (parser, ["Scenario", "ScenarioTemplate", "Step"]),
    ],
)
def test_every_name_that_we_import_is_there(place, names) -> None:
    assert [name for name in names if not hasattr(place, name)] == []


def test_a_definition_is_registered_with_its_function_kind_and_parser() -> None:
    before = set(map(id, steps.step_function_context_registry.values()))

    @given(parsers.parse("a canary of {grams:d} g"))
    def canary(grams: int) -> None:
        """Sing."""

    new = [each for each in steps.step_function_context_registry.values() if id(each) not in before]
    try:
        (context,) = new
        assert context.type == "given"
        assert inspect.unwrap(context.step_func) is inspect.unwrap(canary)
        assert context.parser.name == "a canary of {grams:d} g"
        assert context.parser.is_matching("a canary of 20 g")
        assert context.parser.parse_arguments("a canary of 20 g") == {"grams": 20}
        assert isinstance(context.converters, dict)
    finally:
        for function, context in list(steps.step_function_context_registry.items()):
            if context in new:
                del steps.step_function_context_registry[function]


def test_a_step_function_can_be_replaced() -> None:
    fields = {field.name for field in steps.StepFunctionContext.__dataclass_fields__.values()}
    assert {"type", "step_func", "parser", "converters", "target_fixture"} <= fields
    assert not steps.StepFunctionContext.__dataclass_params__.frozen


def test_scenarios_know_their_places_and_steps() -> None:
    assert {"feature", "name", "line_number", "tags", "examples", "rule"} <= set(
        parser.ScenarioTemplate.__dataclass_fields__
    )
    assert callable(parser.ScenarioTemplate.render)
    assert {"type", "name", "line_number", "keyword"} <= set(parser.Step.__dataclass_fields__)


def test_the_hooks_that_record_events_are_declared() -> None:
    from pytest_bdd import hooks

    wanted = {
        "pytest_bdd_before_step", "pytest_bdd_after_step", "pytest_bdd_step_error", "pytest_bdd_step_func_lookup_error",
        "pytest_bdd_after_scenario", "pytest_bdd_apply_tag",
    }  # fmt: skip
    assert wanted <= set(vars(hooks))


def test_pytest_lists_fixtures_and_reports_carry_properties(request) -> None:
    assert hasattr(request.session, "_fixturemanager")
    names = compat.get_fixture_names(fixturemanager=request.session._fixturemanager)
    assert "tmp_path" in names
    definitions = compat.getfixturedefs(request.session._fixturemanager, "tmp_path", request.node)
    assert definitions
    assert definitions[0].func is not None
    assert isinstance(definitions[0].baseid, str)
    assert isinstance(request.node.user_properties, list)
    from _pytest.runner import runtestprotocol

    assert {"item", "log", "nextitem"} <= set(inspect.signature(runtestprotocol).parameters)
