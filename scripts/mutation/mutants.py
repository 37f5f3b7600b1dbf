"""What can be broken: one expression of a pure policy, or one entry of a life cycle's table."""

import ast
import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FILES = {
    "backoff": ("restart", "restart_edges"),
    "breaker": ("restart", "restart_edges"),
    "storm": ("restart", "restart_edges"),
    "restart": ("restart", "restart_edges"),
    "fit": ("fit", "fit_terms"),
    "admission": ("admission", "placement_exact"),
    "placement": ("placement", "placement_exact"),
}
POLICIES = (
    "backoff",
    "breaker",
    "fit",
    "health",
    "mask",
    "restart",
    "starting",
    "storm",
    "admission",
    "placement",
)
TABLES = ("pool", "replica", "node", "job")
TARGETS = {
    **{f"skep.lifecycle.{name}": ("tests/unit/lifecycle",) for name in TABLES},
    **{
        f"skep.policy.{name}": tuple(
            f"tests/unit/policy/test_{file}.py" for file in _FILES.get(name, (name,))
        )
        for name in POLICIES
    },
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
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_SKIPPED = {"annotation", "returns", "decorator_list", "slice", "keywords_of_class"}


@dataclass(frozen=True)
class Mutant:
    """One changed expression. `key` is the same in every run; `reached_by` is what a scenario must use to notice it."""

    key: str
    module: str
    line: int
    text: str
    word: str
    source: str
    reached_by: str

    @property
    def room(self) -> str:
        """The module's last name."""
        return self.module.rpartition(".")[2]


def mutants_of(module: str, src: Path) -> Iterator[Mutant]:
    """Yield each mutant of a module. Docstrings, annotations and a class's own keywords are left alone."""
    source = (src / Path(*module.split(".")).with_suffix(".py")).read_text(encoding="utf-8")
    tree, lines = ast.parse(source), source.splitlines()
    seen: dict[str, int] = {}
    for parent, name, index, function in _places(tree, ""):
        held = getattr(parent, name)
        original = held if index is None else held[index]
        for word, reached, other in _variants(original, module):
            _put(parent, name, index, ast.copy_location(other, original))
            text = lines[original.lineno - 1].strip()
            base = f"{module} | {text} | {word}"
            seen[base] = seen.get(base, 0) + 1
            yield Mutant(
                key=hashlib.sha256(f"{base} | {seen[base]}".encode()).hexdigest()[:12],
                module=module,
                line=original.lineno,
                text=text,
                word=word,
                source=ast.unparse(ast.fix_missing_locations(tree)),
                reached_by=reached or f"{module}:{function}",
            )
            _put(parent, name, index, original)


def _places(node: ast.AST, function: str) -> Iterator[tuple[ast.AST, str, int | None, str]]:
    """Yield where expressions stand, and in which function; "" is the module itself."""
    for name, value in ast.iter_fields(node):
        if name in _SKIPPED or (isinstance(node, ast.ClassDef) and name == "keywords"):
            continue
        for index, each in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(each, ast.AST):
                continue
            if isinstance(each, ast.expr):
                yield node, name, index, function
            inner = each.name if isinstance(each, ast.FunctionDef) else function
            yield from _places(each, inner)


def _variants(node: ast.AST, module: str) -> Iterator[tuple[str, str, ast.AST]]:
    """Yield what one node could be instead: a word for it, what must be reached, the node."""
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in _COMPARES:
            other = copy.deepcopy(node)
            other.ops = [_COMPARES[type(operator)]()]
            yield f"{type(operator).__name__} → {type(other.ops[0]).__name__}", "", other
        case ast.BinOp(op=operator) if type(operator) in _OPERATORS:
            other = copy.deepcopy(node)
            other.op = _OPERATORS[type(operator)]()
            yield f"{type(operator).__name__} → {type(other.op).__name__}", "", other
        case ast.BoolOp():
            other = copy.deepcopy(node)
            other.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield f"{type(node.op).__name__} → {type(other.op).__name__}", "", other
        case ast.UnaryOp(op=ast.Not()):
            yield "not removed", "", copy.deepcopy(node.operand)
        case ast.Constant(value=bool(value)):
            yield f"{value} → {not value}", "", ast.Constant(not value)
        case ast.Constant(value=int(value)) | ast.Constant(value=float(value)):
            yield f"{value} → {value + 1}", "", ast.Constant(value + 1)
        case ast.Name(id=name) if name in _CALLS and isinstance(node.ctx, ast.Load):
            yield f"{name} → {_CALLS[name]}", "", ast.Name(_CALLS[name], ast.Load())
        case ast.Set() if len(node.elts) > 1:
            for index, each in enumerate(node.elts):
                fewer = copy.deepcopy(node)
                del fewer.elts[index]
                yield f"{ast.unparse(each)} removed", "", fewer
        case ast.Dict() if len(node.keys) > 2:
            yield from _entries(node, module)


def _entries(node: ast.Dict, module: str) -> Iterator[tuple[str, str, ast.AST]]:
    """Yield a table without each of its entries, and with each leading back to where it came from."""
    table = module.rpartition(".")[2]
    for index, key in enumerate(node.keys):
        less = copy.deepcopy(node)
        del less.keys[index], less.values[index]
        reached = ""
        if isinstance(key, ast.Tuple):
            state, event = (each.attr.lower() for each in key.elts if isinstance(each, ast.Attribute))
            reached = f"{table}:{state}:{event}"
        yield f"entry {ast.unparse(key) if key else index} removed", reached, less
        if isinstance(key, ast.Tuple):
            stays = copy.deepcopy(node)
            stays.values[index] = copy.deepcopy(key.elts[0])
            yield f"entry {ast.unparse(key)} stays where it was", reached, stays


def _put(parent: ast.AST, name: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[index] = node
