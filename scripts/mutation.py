"""Break every pure policy and table entry of the hive in turn, and list what no test notices.

    python scripts/mutation.py [--only restart,breaker] [--budget-s 600] [--write docs/mutation.md]

Each mutant is one changed expression, put in place by an import hook in a forked process, so that no file is touched.
It is killed when a test of its module fails. Survivors are listed with their place; known ones carry their reason.
"""

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MUTANT_S_MAX = 90
POLICIES = ("backoff", "breaker", "fit", "health", "mask", "restart", "starting", "storm")
TABLES = ("pool", "replica", "node", "job")
_FILES = {"backoff": "restart", "breaker": "restart", "storm": "restart"}
TARGETS = {
    **{f"skep.policy.{name}": (f"tests/unit/policy/test_{_FILES.get(name, name)}.py",) for name in POLICIES},
    **{f"skep.lifecycle.{name}": ("tests/unit/lifecycle",) for name in TABLES},
}
_COMPARES = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
}


def variants(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield what one node could be instead, with a word for it."""
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in _COMPARES:
            other = copy.deepcopy(node)
            other.ops = [_COMPARES[type(operator)]()]
            yield f"{type(operator).__name__} → {type(other.ops[0]).__name__}", other
        case ast.BinOp(op=operator) if type(operator) in _OPERATORS:
            other = copy.deepcopy(node)
            other.op = _OPERATORS[type(operator)]()
            yield f"{type(operator).__name__} → {type(other.op).__name__}", other
        case ast.BoolOp():
            other = copy.deepcopy(node)
            other.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield f"{type(node.op).__name__} → {type(other.op).__name__}", other
        case ast.UnaryOp(op=ast.Not()):
            yield "not removed", copy.deepcopy(node.operand)
        case ast.Constant(value=bool(value)):
            yield f"{value} → {not value}", ast.Constant(not value)
        case ast.Constant(value=int(value)) | ast.Constant(value=float(value)):
            yield f"{value} → {value + 1}", ast.Constant(value + 1)
        case ast.Dict() if len(node.keys) > 2:
            for index, key in enumerate(node.keys):
                other = copy.deepcopy(node)
                del other.keys[index], other.values[index]
                yield f"entry {ast.unparse(key) if key else index} removed", other


def mutants(source: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, word and source of each mutant of a module. Docstrings, annotations and names are left alone."""
    tree = ast.parse(source)
    places: list[tuple[ast.AST, str, int | None]] = []
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if name in {"annotation", "returns", "decorator_list", "slice"}:
                continue
            if isinstance(value, list):
                places += [
                    (parent, name, index) for index, each in enumerate(value) if isinstance(each, ast.expr)
                ]
            elif isinstance(value, ast.expr):
                places.append((parent, name, None))
    for parent, name, index in places:
        held = getattr(parent, name)
        original = held if index is None else held[index]
        for word, other in variants(original):
            _put(parent, name, index, ast.copy_location(other, original))
            yield original.lineno, word, ast.unparse(ast.fix_missing_locations(tree))
            _put(parent, name, index, original)


def _put(parent: ast.AST, name: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[index] = node


class Hook(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads one module from a text."""

    def __init__(self, module: str, source: str) -> None:
        self.module, self.source = module, source

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        """Answer for the one module."""
        return importlib.util.spec_from_loader(name, self) if name == self.module else None

    def exec_module(self, module: object) -> None:
        """Run the mutant."""
        exec(compile(self.source, self.module, "exec"), vars(module))  # noqa: S102 - our own source, changed by us


def is_killed(module: str, source: str, tests: tuple[str, ...]) -> bool:
    """Run the tests over a mutant in a fork; True when they fail, crash or hang."""
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        signal.alarm(MUTANT_S_MAX)
        sys.meta_path.insert(0, Hook(module, source))
        importlib.import_module(module)  # Now: pytest's own import hook would come before ours.
        import pytest

        status = 1
        try:
            status = pytest.main(
                [
                    "-x",
                    "-q",
                    "-p",
                    "no:xdist",
                    "-W",
                    "ignore::pytest.PytestAssertRewriteWarning",
                    "-o",
                    "skep_bdd=false",
                    "-o",
                    "skep_ledger=false",
                    *tests,
                ]
            )
        finally:
            os._exit(int(status))
    _, ended = os.waitpid(child, 0)
    return ended != 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--budget-s", type=float, default=3600)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    os.chdir(ROOT)
    import hypothesis  # noqa: F401 - imported once, before the forks
    import msgspec  # noqa: F401
    import pytest  # noqa: F401

    deadline = time.monotonic() + options.budget_s
    rows, survivors = [], []
    for module, tests in TARGETS.items():
        if options.only and module.rpartition(".")[2] not in options.only.split(","):
            continue
        path = ROOT / "src" / Path(*module.split(".")).with_suffix(".py")
        killed = total = skipped = 0
        if is_killed(module, path.read_text(), tests):
            sys.exit(f"{module}: its tests fail without any change, so a mutant's death would mean nothing")
        for line, word, source in mutants(path.read_text()):
            if time.monotonic() > deadline:
                skipped += 1
                continue
            total += 1
            if is_killed(module, source, tests):
                killed += 1
            else:
                survivors.append((path.relative_to(ROOT), line, word))
                print(f"survived: {path.relative_to(ROOT)}:{line}: {word}", flush=True)
        rows.append((module, total, killed, skipped))
        print(f"{module}: {killed} of {total} killed, {skipped} not tried", flush=True)
    if options.write:
        options.write.write_text(report(rows, survivors))


def report(rows: list[tuple[str, int, int, int]], survivors: list[tuple[Path, int, str]]) -> str:
    table = "".join(
        f"| `{name}` | {total} | {killed} | {total - killed} | {skipped} |\n"
        for name, total, killed, skipped in rows
    )
    listed = "".join(f"| `{path}:{line}` | {word} |\n" for path, line, word in survivors) or "| none | |\n"
    return (
        "# Mutation run\n\nGenerated by `python scripts/mutation.py --write docs/mutation.md`: each pure policy and each table entry\n"
        "of the hive is altered in turn, and the tests of its room must notice.\n\n"
        "| module | mutants | killed | survived | not tried in the time |\n| --- | --- | --- | --- | --- |\n"
        f"{table}\n## Survivors\n\n| place | change |\n| --- | --- |\n{listed}"
    )


if __name__ == "__main__":
    main()
