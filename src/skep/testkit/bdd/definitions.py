"""Step definitions: where they stand, who can see them, and which of them match a step.

Built on pytest-bdd's registry and pytest's fixture lookup, which are private: `tests/unit/testkit` holds canaries.
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_bdd.compat import get_fixture_names, getfixturedefs
from pytest_bdd.parser import Step
from pytest_bdd.scenario import iterparentnodeids
from pytest_bdd.steps import StepFunctionContext, StepNamePrefix, step_function_context_registry


@dataclass(frozen=True, eq=False)
class Definition:
    """One step definition. `depth` tells how near its scope is to the test: the deepest wins."""

    context: StepFunctionContext
    scope: str
    depth: int

    @property
    def function(self) -> Callable[..., Any]:
        """The function as it was written."""
        found: Callable[..., Any] = inspect.unwrap(self.context.step_func)
        return found

    @property
    def path(self) -> Path:
        """The file it stands in."""
        return Path(self.function.__code__.co_filename)

    @property
    def line(self) -> int:
        """The line of its first decorator."""
        return int(self.function.__code__.co_firstlineno)

    @property
    def pattern(self) -> str:
        """The step's text as declared."""
        name: str | bytes = self.context.parser.name
        return name.decode() if isinstance(name, bytes) else name

    @property
    def keyword(self) -> str:
        """Given, When, Then, or Step for one that fits all."""
        return (self.context.type or "step").capitalize()

    @property
    def is_async(self) -> bool:
        """Whether it needs our runner."""
        return inspect.iscoroutinefunction(self.function) or inspect.isasyncgenfunction(self.function)

    def matches(self, step: Step) -> bool:
        """Whether it fits a step's kind and text."""
        return (self.context.type is None or self.context.type == step.type) and bool(
            self.context.parser.is_matching(step.name)
        )


class Vocabulary:
    """The definitions that each part of the suite can see, looked up once for each module or class."""

    def __init__(self, session: pytest.Session) -> None:
        self._manager = session._fixturemanager  # noqa: SLF001 - pytest has no public way to list fixtures
        self._visible: dict[int, list[Definition]] = {}
        self._matched: dict[tuple[int, str, str], list[Definition]] = {}

    def visible(self, item: pytest.Item) -> list[Definition]:
        """Every definition that this item could use."""
        key = id(item.parent)
        if key not in self._visible:
            self._visible[key] = list(self._look_up(item))
        return self._visible[key]

    def candidates(self, step: Step, item: pytest.Item) -> list[Definition]:
        """The definitions of the nearest scope that match: one is right, none is undefined, more are ambiguous."""
        key = (id(item.parent), step.type, step.name)
        if key not in self._matched:
            matching = [each for each in self.visible(item) if each.matches(step)]
            deepest = max((each.depth for each in matching), default=0)
            self._matched[key] = [each for each in matching if each.depth == deepest]
        return self._matched[key]

    def _look_up(self, item: pytest.Item) -> Iterable[Definition]:
        prefix = f"{StepNamePrefix.step_def.value}_"
        for name in get_fixture_names(fixturemanager=self._manager):
            if not name.startswith(prefix):
                continue
            for fixture in getfixturedefs(self._manager, name, item) or ():
                context = step_function_context_registry.get(fixture.func)
                if context is not None:
                    scope = fixture.baseid
                    yield Definition(context, scope, len(list(iterparentnodeids(scope))))


def all_contexts() -> list[StepFunctionContext]:
    """Every step definition that was imported."""
    return list(step_function_context_registry.values())
