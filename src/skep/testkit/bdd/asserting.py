"""Does a `Then` assert? Read from its source, and seen while it runs.

An assertion is an `assert` whose test is no constant, a call of something named `assert…` or `expect…`, or
`pytest.raises` / `pytest.fail`. A helper of such a name, if it is ours to read, must itself assert or raise.
While a step runs, a trace of that one function tells whether one of these places was reached: opcode by opcode,
so that `if x: assert y` on one line counts only when it asserts.
"""

import ast
import functools
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

_NAME = re.compile(r"_*(assert|expect)([_A-Z].*|$)")
_PYTEST = {"raises", "fail", "warns"}
_DEPTH_MAX = 5

Position = tuple[int, int, int, int]


@functools.cache
def assertions_in(function: Callable[..., Any], depth: int = 0) -> tuple[Position, ...]:
    """Return where a function asserts: (line, end line, column, end column). None of them: it never does."""
    tree = _tree(function)
    if tree is None:
        return ()
    return tuple(
        (node.lineno, node.end_lineno or node.lineno, node.col_offset, node.end_col_offset or 0)
        for node in ast.walk(tree)
        if (isinstance(node, ast.Assert) and not _is_constant(node.test))
        or (isinstance(node, ast.Call) and _asserts_by_name(node, function, depth))
    )


def has_source(function: Callable[..., Any]) -> bool:
    """Whether the function can be read at all."""
    return _tree(function) is not None


class Watch:
    """Tells whether an assertion of a function was reached."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._offsets = _offsets(inspect.unwrap(function))
        self.has_run = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Trace this thread; a debugger's or coverage's own trace goes on."""
        outer = sys.gettrace()

        def trace(frame: FrameType, _event: str, argument: Any) -> Any:
            theirs = outer(frame, "call", argument) if outer else None
            offsets = self._offsets.get(frame.f_code)
            if offsets is None or self.has_run:
                return theirs
            frame.f_trace_opcodes = True
            return functools.partial(local, offsets, theirs)

        def local(offsets: frozenset[int], theirs: Any, frame: FrameType, event: str, argument: Any) -> Any:
            if event == "opcode" and frame.f_lasti in offsets:
                self.has_run = True
            follow = theirs(frame, event, argument) if theirs and event != "opcode" else theirs
            return functools.partial(local, offsets, follow)

        sys.settrace(trace)
        try:
            yield
        finally:
            sys.settrace(outer)


@functools.cache
def _offsets(function: Callable[..., Any]) -> dict[CodeType, frozenset[int]]:
    """The bytecode offsets that stand inside assertions, for the function and what is defined inside it."""
    places = assertions_in(function)
    return {code: frozenset(_inside(code, places)) for code in _nested(function.__code__)}


def _inside(code: CodeType, places: tuple[Position, ...]) -> Iterator[int]:
    for index, (line, _, column, _) in enumerate(code.co_positions()):
        if line is None or column is None:
            continue
        if any((top, left) <= (line, column) <= (bottom, right) for top, bottom, left, right in places):
            yield index * 2


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


@functools.cache
def _tree(function: Callable[..., Any]) -> ast.AST | None:
    """Parse a function's source, with the line and column numbers that it has in its file."""
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError):
        return None
    source = "".join(lines)
    dedented = textwrap.dedent(source)
    try:
        tree = ast.parse(dedented)
    except SyntaxError:
        return None
    margin = len(lines[0]) - len(lines[0].lstrip())
    for node in ast.walk(tree):
        if hasattr(node, "col_offset"):
            node.col_offset += margin
            node.end_col_offset += margin  # type: ignore[attr-defined]
    return ast.increment_lineno(tree, first - 1)


def _is_constant(test: ast.expr) -> bool:
    """Whether an assertion cannot fail: a literal, or the tuple that somebody meant as test and message."""
    return isinstance(test, ast.Constant) or (isinstance(test, ast.Tuple) and bool(test.elts))


def _asserts_by_name(call: ast.Call, function: Callable[..., Any], depth: int) -> bool:
    name = _called(call.func)
    if isinstance(call.func, ast.Attribute) and name in _PYTEST:
        return isinstance(call.func.value, ast.Name) and call.func.value.id == "pytest"
    if not _NAME.match(name):
        return False
    helper = getattr(function, "__globals__", {}).get(name) if isinstance(call.func, ast.Name) else None
    if not inspect.isfunction(helper) or depth >= _DEPTH_MAX:
        return True
    tree = _tree(helper)
    return tree is None or bool(assertions_in(helper, depth + 1)) or _raises(tree)


def _raises(tree: ast.AST) -> bool:
    return any(isinstance(node, ast.Raise) for node in ast.walk(tree))


def _called(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""
