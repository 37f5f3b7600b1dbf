"""Requirement tables, and what traces to them.

A table is Markdown: its first column holds ids such as OC-POOL-3001, its second what must hold.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_ROW = re.compile(r"^\|\s*([A-Z]{2,}(?:-[A-Z0-9]+)*-\d{3,5})\s*\|\s*(.*?)\s*\|")
_ID = re.compile(r"[A-Z]{2,}(?:-[A-Z0-9]+)*-\d{3,5}")


@dataclass
class Requirements:
    """The requirements of a suite: their texts, and where each stands."""

    folder: str
    texts: dict[str, str] = field(default_factory=dict)
    places: dict[str, tuple[Path, int]] = field(default_factory=dict)

    @staticmethod
    def ids_among(tags: Iterable[str]) -> set[str]:
        """Return the tags that look like a requirement's id."""
        return {tag for tag in tags if _ID.fullmatch(tag)}


def read_requirements(folder: Path) -> Requirements:
    """Read every table below a folder."""
    found = Requirements(folder=folder.name)
    for path in sorted(folder.rglob("*.md")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if match := _ROW.match(line):
                found.texts[match[1]] = match[2].replace("`", "")
                found.places[match[1]] = (path, number)
    return found


def matrix(texts: Mapping[str, str], scenarios: Iterable[tuple[str, Iterable[str]]]) -> dict[str, list[str]]:
    """Return for each requirement the names of the scenarios that carry its tag."""
    found: dict[str, list[str]] = {name: [] for name in texts}
    for name, tags in scenarios:
        for tag in tags:
            if tag in found:
                found[tag].append(name)
    return found
