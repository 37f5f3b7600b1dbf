"""Style that a machine can hold: file length, banned names, docstrings on seams, what may not be committed."""

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE_LINES_MAX, TEST_LINES_MAX, FUNCTION_LINES_MAX = 400, 600, 60
BANNED_STEMS = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers"}


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


SOURCES = tracked("src/**.py", "src/*.py")
TESTS = tracked("tests/**.py")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize(
    ("files", "lines_max"), [(SOURCES, SOURCE_LINES_MAX), (TESTS, TEST_LINES_MAX)], ids=["src", "tests"]
)
def test_no_file_is_longer_than_a_reader_can_hold(files: list[Path], lines_max: int) -> None:
    long = {named(path): count for path in files if (count := len(path.read_text().splitlines())) > lines_max}
    assert not long, f"split these: {long}"


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count from the first statement on: a signature that lists a command's options is a table, not logic."""
    return (node.end_lineno or 0) - node.body[0].lineno + 1


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{named(path)}:{node.lineno} {node.name} ({body_lines(node)} lines)"
        for path in SOURCES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and body_lines(node) > FUNCTION_LINES_MAX
    ]
    assert not long, f"split these: {long}"


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert not [named(path) for path in SOURCES if {*path.parts} & BANNED_STEMS or path.stem in BANNED_STEMS]


def test_every_module_says_what_it_alone_knows() -> None:
    silent = [
        named(path) for path in SOURCES if path.read_text().strip() and not ast.get_docstring(parsed(path))
    ]
    assert not silent


def test_every_method_of_a_protocol_has_a_docstring() -> None:
    silent = [
        f"{named(path)}:{method.lineno} {klass.name}.{method.name}"
        for path in SOURCES
        for klass in ast.walk(parsed(path))
        if isinstance(klass, ast.ClassDef)
        and any(
            ast.unparse(base).partition("[")[0] in {"Protocol", "typing.Protocol"} for base in klass.bases
        )
        for method in klass.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and not ast.get_docstring(method)
    ]
    assert not silent


def test_no_bare_except_swallows_an_error() -> None:
    swallowed = [
        f"{named(path)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"})
        and all(isinstance(line, ast.Pass) for line in node.body)
    ]
    assert not swallowed


def test_nothing_tracked_holds_a_download_address_or_a_path_of_one_machine() -> None:
    address = re.compile(
        r"https?://(?!example\.org)[^\s\"']+(/simple[/\"'\s]|/packages/|\.whl\b)|/(home|work)/[a-z]+/main\b"
    )
    found = []
    for path in tracked():
        if path.suffix in {".gguf", ".png", ".msgpack"}:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if address.search(line):
                found.append(f"{named(path)}:{number}")
    assert not found
