"""The rules that kill false greens. Each finding names a file and a line.

| rule | what it finds |
| --- | --- |
| undefined-step | a step that no definition matches; with a snippet to paste |
| ambiguous-step | a step that several definitions of one scope match |
| async-step | an `async def` step where our runner is switched off |
| hollow-then | a `Then` whose definition never asserts |
| unused-step | a definition under the suite's own root that no step uses |
| unbound-feature, unbound-scenario | what no test binds, so that it never runs |
| empty-outline | an outline without a row |
| unproved-requirement, unknown-requirement, untraced-scenario | requirements and scenarios that do not meet |
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from pytest_bdd.parser import Step

from skep.testkit.bdd.asserting import assertions_in, has_source
from skep.testkit.bdd.binding import Bound, relative
from skep.testkit.bdd.coverage import unbound, unused
from skep.testkit.bdd.definitions import Definition, Vocabulary
from skep.testkit.bdd.requirements import Requirements
from skep.testkit.bdd.snippet import snippet


@dataclass(frozen=True, order=True)
class Finding:
    """One error of a suite."""

    path: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.message}"


@dataclass
class Suite:
    """What the rules look at. `roots` are the suite's own folders, empty where only a part of it was asked for."""

    bound: Sequence[Bound]
    vocabulary: Vocabulary
    root: Path
    roots: Sequence[Path]
    runs_async: bool
    requirements: Requirements | None = None

    def __post_init__(self) -> None:
        self.used: Counter[str] = Counter()
        self.used_contexts: dict[int, Definition] = {}

    def place(self, path: str | Path) -> str:
        """A path as people write it."""
        return relative(path, self.root)


def lint(suite: Suite) -> list[Finding]:
    """Return every finding, sorted by place."""
    found = set(_step_findings(suite))
    found.update(_then_findings(suite))
    if suite.roots:
        found.update(
            Finding(suite.place(each.path), each.line, each.rule, each.message)
            for each in unbound(suite.bound, suite.roots)
        )
        found.update(_unused_findings(suite))
    if suite.requirements is not None:
        found.update(_requirement_findings(suite, suite.requirements))
    return sorted(found)


def _step_findings(suite: Suite) -> Iterator[Finding]:
    for bound in suite.bound:
        if bound.template.templated and bound.row is None:
            yield Finding(
                bound.uri, bound.template.line_number, "empty-outline", f"{bound.template.name!r} has no row"
            )
        for step in bound.steps:
            candidates = suite.vocabulary.candidates(step, bound.item)
            for each in candidates:
                suite.used_contexts.setdefault(id(each.context), each)
            suite.used.update(_key(each) for each in candidates)
            yield from _judge_step(suite, bound, step, candidates)


def _judge_step(
    suite: Suite, bound: Bound, step: Step, candidates: Sequence[Definition]
) -> Iterator[Finding]:
    row = f" (row {bound.row + 1})" if bound.row is not None else ""
    what = f"{step.type.capitalize()} {step.name!r}{row}"
    if not candidates:
        paste = snippet(step.type, step.name).replace("\n", "\n    ")
        yield Finding(
            bound.uri, step.line_number, "undefined-step", f"{what} has no definition; paste:\n    {paste}"
        )
    if len(candidates) > 1:
        places = ", ".join(f"{suite.place(each.path)}:{each.line}" for each in candidates)
        yield Finding(
            bound.uri,
            step.line_number,
            "ambiguous-step",
            f"{what} fits {len(candidates)} definitions: {places}",
        )
    for each in candidates:
        if each.is_async and not suite.runs_async:
            yield Finding(
                suite.place(each.path),
                each.line,
                "async-step",
                f"{each.pattern!r} is async and nothing would await it: set skep_async_steps = true",
            )


def _then_findings(suite: Suite) -> Iterator[Finding]:
    thens = {
        id(each.context): each
        for bound in suite.bound
        for step in bound.steps
        if step.type == "then"
        for each in suite.vocabulary.candidates(step, bound.item)
    }
    for each in thens.values():
        if has_source(each.function) and not assertions_in(each.function):
            yield Finding(
                suite.place(each.path),
                each.line,
                "hollow-then",
                f"Then {each.pattern!r} asserts nothing: assert, or call an assert_… or expect_… that does",
            )


def _unused_findings(suite: Suite) -> Iterator[Finding]:
    for each in unused(suite.used_contexts.keys(), suite.roots):
        yield Finding(
            suite.place(each.path),
            each.line,
            "unused-step",
            f"{each.keyword} {each.pattern!r} is used by no feature",
        )


def _requirement_findings(suite: Suite, requirements: Requirements) -> Iterator[Finding]:
    known = requirements.texts
    traced: set[str] = set()
    for bound in suite.bound:
        ids = requirements.ids_among(bound.tags)
        traced.update(ids)
        line = bound.template.line_number
        for name in sorted(ids - known.keys()):
            yield Finding(
                bound.uri, line, "unknown-requirement", f"@{name} stands in no table of {requirements.folder}"
            )
        if not ids:
            yield Finding(
                bound.uri, line, "untraced-scenario", f"{bound.template.name!r} carries no requirement's tag"
            )
    if suite.roots:
        for name in sorted(known.keys() - traced):
            path, line = requirements.places[name]
            yield Finding(suite.place(path), line, "unproved-requirement", f"{name} has no scenario")


def _key(definition: Definition) -> str:
    return f"{definition.path}:{definition.line}:{definition.pattern}"


class LintItem(pytest.Item):
    """A finding as a failing test, so that it is reported like one, also under xdist."""

    def __init__(self, *, finding: Finding, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.finding = finding

    def runtest(self) -> None:
        """Fail."""
        raise LintFailed(str(self.finding))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> str:  # type: ignore[override]
        """The finding alone: a trace would say nothing."""
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where it stands."""
        return self.config.rootpath / self.finding.path, self.finding.line - 1, self.name


class LintFailed(Exception):
    """The suite breaks a rule."""


def lint_items(session: pytest.Session, findings: Iterable[Finding]) -> list[pytest.Item]:
    """Return a failing item for each finding."""
    return [
        LintItem.from_parent(
            session,
            name=f"{each.rule}:{each.path}:{each.line}",
            finding=each,
            nodeid=f"{each.path}::{each.rule}:{each.line}:{number}",
        )
        for number, each in enumerate(findings)
    ]
