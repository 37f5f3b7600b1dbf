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
_CATCH_ASSERTIONS = {"AssertionError", "Exception", "BaseException"}
_DEPTH_MAX = 5

Position = tuple[int, int, int, int]


@functools.cache
def assertions_in(function: Callable[..., Any], depth: int = 0) -> tuple[Position, ...]:
    """Return where a function asserts: (line, end line, column, end column). None of them: it never does."""
    tree = _tree(function)
    if tree is None:
        return ()
    swallowed = _swallowed(tree)
    return tuple(
        (node.lineno, node.end_lineno or node.lineno, node.col_offset, node.end_col_offset or 0)
        for node in ast.walk(tree)
        if node not in swallowed
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
    """Whether an assertion always ends alike: literals, or a display with something in it, which is always true."""
    match test:
        case ast.Constant() | ast.JoinedStr() | ast.Lambda():
            return True
        case ast.Tuple(elts=inside) | ast.List(elts=inside) | ast.Set(elts=inside) | ast.Dict(keys=inside):
            return bool(inside) or isinstance(test, ast.Tuple)
        case ast.UnaryOp(operand=inside):
            return _is_constant(inside)
        case ast.BoolOp(values=inside):
            return all(_is_constant(each) for each in inside)
        case _:
            return False


def _asserts_by_name(call: ast.Call, function: Callable[..., Any], depth: int) -> bool:
    name = _called(call.func)
    if isinstance(call.func, ast.Attribute) and name in _PYTEST:
        return isinstance(call.func.value, ast.Name) and call.func.value.id == "pytest"
    if not _NAME.match(name):
        return False
    helper = _helper(call.func, getattr(function, "__globals__", {}))
    if not inspect.isfunction(helper) or depth >= _DEPTH_MAX:
        return True
    tree = _tree(helper)
    return tree is None or bool(assertions_in(helper, depth + 1)) or _raises(tree)


def _helper(called: ast.expr, names: dict[str, Any]) -> Any:
    """Find what is called by a global's name, or by that of a module's or class's attribute."""
    match called:
        case ast.Name(id=name):
            return names.get(name)
        case ast.Attribute(value=owner, attr=name):
            found = _helper(owner, names)
            return getattr(found, name, None) if inspect.ismodule(found) or inspect.isclass(found) else None
        case _:
            return None


def _swallowed(tree: ast.AST) -> set[ast.AST]:
    """Return what stands where a failed assertion is caught: in `suppress`, or in a `try` that takes it."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        match node:
            case ast.With(items=items, body=body) | ast.AsyncWith(items=items, body=body) if any(
                _suppresses(each.context_expr) for each in items
            ):
                pass
            case ast.Try(body=body, handlers=handlers) if any(_catches(each) for each in handlers):
                pass
            case _:
                continue
        found.update(inner for statement in body for inner in ast.walk(statement))
    return found


def _suppresses(context: ast.expr) -> bool:
    return (
        isinstance(context, ast.Call)
        and _called(context.func) == "suppress"
        and any(_called(each) in _CATCH_ASSERTIONS for each in context.args)
    )


def _catches(handler: ast.ExceptHandler) -> bool:
    """Whether a handler takes a failed assertion and lets nothing out again."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    takes = any(kind is None or _called(kind) in _CATCH_ASSERTIONS for kind in kinds)
    return takes and not any(_raises(each) or _fails(each) for each in handler.body)


def _fails(tree: ast.AST) -> bool:
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(_called(call.func) == "fail" for call in calls)


def _raises(tree: ast.AST) -> bool:
    return any(isinstance(node, ast.Raise) for node in ast.walk(tree))


def _called(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""
