"""No two modules of skep import each other, be it through others, inside a function, or for their types alone."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"


def modules(source: Path) -> dict[str, Path]:
    """Every module below a folder, by its name."""
    named = {}
    for path in source.rglob("*.py"):
        parts = path.relative_to(source).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


def imported(name: str, path: Path) -> set[str]:
    """Every name that a module's text imports, wherever in the text; `from a import b` may mean `a` or `a.b`."""
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{each.name}" for each in node.names} | {base}
    return found


def circle(source: Path) -> list[str]:
    """A circle of imports, from a module back to itself; empty when there is none."""
    here = modules(source)
    graph: dict[str, set[str]] = {}
    for name, path in here.items():
        wanted = imported(name, path) & here.keys()
        # `from a import b` of a module b asks nothing of a: whoever imports a.b imports a before it.
        inner = {each for each in wanted if any(other.startswith(f"{each}.") for other in wanted)}
        graph[name] = wanted - inner - {name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_imports_one_that_imports_it() -> None:
    assert circle(SOURCE) == []


@pytest.mark.parametrize(
    "back",
    [
        "from house.room import one",
        "from house.room.one import ONE",
        "import house.room.one",
        "from . import one",
        "from .one import ONE",
        "def late():\n    from house.room.one import ONE",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.room.one import ONE",
        "from house.room import three",
    ],
    ids=[
        "from-room",
        "from-module",
        "import",
        "relative",
        "relative-module",
        "late",
        "type-only",
        "through-another",
    ],
)
def test_a_circle_is_found_however_it_is_closed(tmp_path: Path, back: str) -> None:
    room = tmp_path / "house" / "room"
    room.mkdir(parents=True)
    for folder in (room, room.parent):
        (folder / "__init__.py").write_text('"""A room."""\n')
    (room / "one.py").write_text("from house.room.two import TWO\n\nONE = 1\n")
    (room / "two.py").write_text("TWO = 2\n")
    (room / "three.py").write_text("from house.room.one import ONE\n")
    assert circle(tmp_path) == []

    (room / "two.py").write_text(f"{back}\nTWO = 2\n")

    assert {"house.room.one", "house.room.two"} <= set(circle(tmp_path))
