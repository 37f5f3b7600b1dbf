"""Which pytest item is which scenario, rendered, with an id that is the same in every run."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_bdd.parser import Scenario, ScenarioTemplate, Step
from pytest_bdd.scenario import scenario_wrapper_template_registry


@dataclass(frozen=True)
class Bound:
    """One rendered scenario (one row of an outline) and the item that runs it."""

    item: pytest.Item
    template: ScenarioTemplate
    scenario: Scenario
    id: str
    uri: str
    row: int | None
    tags: tuple[str, ...]

    @property
    def steps(self) -> list[Step]:
        """Background steps included."""
        steps: list[Step] = self.scenario.steps
        return steps


_KEY: pytest.StashKey[Bound | None] = pytest.StashKey()


def bound_to(item: pytest.Item) -> Bound | None:
    """Return the scenario that an item runs; None for any other test."""
    if _KEY not in item.stash:
        item.stash[_KEY] = _bind(item)
    return item.stash[_KEY]


def all_bound(items: Iterable[pytest.Item]) -> list[Bound]:
    """Return the scenarios among these items, in order."""
    return [found for item in items if (found := bound_to(item)) is not None]


def relative(path: str | Path, root: Path) -> str:
    """Return a path as people write it: relative to the root where it is below it."""
    text = os.path.relpath(path, root)
    return str(path) if text.startswith("..") else Path(text).as_posix()


def _bind(item: pytest.Item) -> Bound | None:
    function = getattr(item, "function", None)
    if function is None:
        return None
    try:
        template = scenario_wrapper_template_registry.get(function)
    except TypeError:  # Not every callable can be a weak reference.
        return None
    if template is None:
        return None
    callspec = getattr(item, "callspec", None)
    context: Mapping[str, Any] = {}
    row = None
    suffix = ""
    if callspec is not None and "_pytest_bdd_example" in callspec.params:
        context = callspec.params["_pytest_bdd_example"]
        row = callspec.indices["_pytest_bdd_example"]
        suffix = f"[{row + 1}]"
    uri = relative(template.feature.filename, item.config.rootpath)
    rule_tags = set() if template.rule is None else set(template.rule.tags)
    marks = {mark.name for mark in item.iter_markers()} & _example_tags(template)
    tags = set(template.tags) | set(template.feature.tags) | rule_tags | marks
    return Bound(
        item=item,
        template=template,
        scenario=template.render(context),
        id=f"{uri}:{template.line_number}{suffix}",
        uri=uri,
        row=row,
        tags=tuple(sorted(tags)),
    )


def _example_tags(template: ScenarioTemplate) -> set[str]:
    return {tag for examples in template.examples for tag in (examples.tags or ())}
