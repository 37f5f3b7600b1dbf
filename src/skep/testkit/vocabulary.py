"""The steps of a suite, or of the library alone: what each says, where it stands, how often it is used."""

import contextlib
import importlib
import io
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from skep.errors import InvalidConfig


@dataclass(frozen=True)
class StepEntry:
    """One step definition. `example` is a step that uses it; empty where none does."""

    keyword: str
    pattern: str
    location: str
    uses: int
    example: str
    summary: str


class _Collector:
    def __init__(self) -> None:
        self.entries: list[StepEntry] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Count the uses, after the lint has matched every step."""
        from skep.testkit.bdd.definitions import Definition, all_contexts

        plugin: Any = session.config.pluginmanager.get_plugin("skep-bdd")
        uses: dict[int, list[str]] = {}
        for bound in plugin.suite.bound if plugin.suite else ():
            for step in bound.steps:
                for each in plugin.suite.vocabulary.candidates(step, bound.item):
                    uses.setdefault(id(each.context), []).append(step.name)
        for context in all_contexts():
            definition = Definition(context, "", 0)
            if definition.path.parent.name == "pytest_bdd":
                continue
            found = uses.get(id(context), [])
            self.entries.append(
                StepEntry(
                    keyword=definition.keyword,
                    pattern=definition.pattern,
                    location=f"{plugin.suite.place(definition.path) if plugin.suite else definition.path}:{definition.line}",
                    uses=len(found),
                    example=found[0] if found else "",
                    summary=(definition.function.__doc__ or "").strip().split("\n")[0],
                )
            )


def suite_steps(paths: Sequence[str]) -> list[StepEntry]:
    """Collect a suite and return its steps, the library's among them. Raises: InvalidConfig."""
    collector, output = _Collector(), io.StringIO()
    arguments = [
        "-p",
        "skep.testkit.plugin",
        "--skep-bdd",
        "--collect-only",
        "-q",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
    ]
    with contextlib.redirect_stdout(output):
        status = pytest.main([*arguments, *paths], plugins=[collector])
    if not collector.entries:
        raise InvalidConfig(
            f"no steps found in {', '.join(paths)}: pytest ended with {int(status)}\n{output.getvalue()[-1000:]}"
        )
    order = ("Given", "When", "Then", "Step")
    return sorted(collector.entries, key=lambda each: (order.index(each.keyword), each.pattern))


def library_modules() -> list[str]:
    """The names of the step library's modules, for `pytest_plugins`."""
    package = importlib.import_module("skep.testkit.steps")
    folder = Path(package.__file__ or "").parent
    return [
        f"{package.__name__}.{each.name}"
        for each in pkgutil.iter_modules([str(folder)])
        if not each.name.startswith("_")
    ]
