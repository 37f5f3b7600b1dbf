"""Features and scenarios that nothing binds, and step definitions that nothing uses."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gherkin.errors import CompositeParserException
from gherkin.parser import Parser

from skep.testkit.bdd.binding import Bound
from skep.testkit.bdd.definitions import Definition, all_contexts


@dataclass(frozen=True)
class Loose:
    """A feature or scenario that never runs."""

    path: Path
    line: int
    rule: str
    message: str


def unbound(bound: Iterable[Bound], roots: Sequence[Path]) -> Iterator[Loose]:
    """Find what stands in the feature files below the roots and is run by no test.

    Read by the Gherkin parser itself: pytest-bdd keeps the last of two scenarios of one name and forgets the first.
    """
    lines: dict[Path, set[int]] = {}
    for each in bound:
        lines.setdefault(Path(each.template.feature.filename).resolve(), set()).add(each.template.line_number)
    for path in feature_files(roots):
        try:
            declared = declared_scenarios(path)
        except CompositeParserException as error:
            yield Loose(path, 1, "unbound-feature", f"it does not parse: {str(error).splitlines()[-1]}")
            continue
        if path not in lines:
            yield Loose(
                path, 1, "unbound-feature", f"no test binds it: add scenarios({path.name!r}) to a test module"
            )
            continue
        for line, name in declared:
            if line not in lines[path]:
                yield Loose(
                    path, line, "unbound-scenario", f"{name!r} is run by no test (is its name there twice?)"
                )


def unused(used: Collection[int], roots: Sequence[Path]) -> Iterator[Definition]:
    """Find the definitions that stand below the roots and matched no step. `used` are ids of contexts."""
    for context in all_contexts():
        definition = Definition(context, "", 0)
        path = definition.path.resolve()
        if id(context) not in used and any(path.is_relative_to(root) for root in roots):
            yield definition


def feature_files(roots: Iterable[Path]) -> list[Path]:
    """Every feature file below these folders."""
    return sorted({path.resolve() for root in roots for path in root.rglob("*.feature")})


def declared_scenarios(path: Path) -> list[tuple[int, str]]:
    """Return line and name of each scenario in a file. Raises: CompositeParserException."""
    document: Any = Parser().parse(path.read_text(encoding="utf-8"))
    feature = document.get("feature") or {}
    return list(_scenarios(feature.get("children", ())))


def _scenarios(children: Iterable[dict[str, Any]]) -> Iterator[tuple[int, str]]:
    for child in children:
        if "scenario" in child:
            yield child["scenario"]["location"]["line"], child["scenario"]["name"]
        if "rule" in child:
            yield from _scenarios(child["rule"]["children"])
