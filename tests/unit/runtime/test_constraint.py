"""Constraints: what compiles, what is refused with which message, and what a mask allows."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skep.errors.runtime import InvalidGrammar
from skep.runtime.backend import BackendModel, LoadOptions
from skep.runtime.constraint import CONSTRAINT_BYTES_MAX, Compiler
from skep.runtime.fake import FakeBackend
from skep.runtime.fake.vocabulary import EOS, TURN_START, VOCAB_SIZE_MIN
from skep.runtime.request import Constraint

MODEL: BackendModel = FakeBackend().load(Path("fake:x"), LoadOptions())
COMPILER = Compiler(MODEL)


def allowed(kind: str, text: str, so_far: str = "") -> set[int]:
    matcher = COMPILER.compile(Constraint(kind=kind, text=text))
    for token in so_far.encode():
        matcher.accept(token)
    logits = np.zeros(VOCAB_SIZE_MIN, dtype=np.float32)
    matcher.mask(logits)
    return {int(token) for token in np.flatnonzero(logits == 0)}


@pytest.mark.parametrize(
    ("kind", "text", "so_far", "expected"),
    [
        ("regex", "[ab]c?", "", b"ab"),
        ("gbnf", 'root ::= "yes" | "no"', "", b"yn"),
        ("gbnf", 'root ::= "yes" | "no"', "y", b"e"),
        ("lark", 'start: "x" | "y"', "", b"xy"),
        ("json_schema", '{"enum": ["a", "b"]}', "", b'"'),
        ("json_schema", '{"enum": ["a", "b"]}', '"', b"ab"),
        ("json_object", "", "", b"{"),
    ],
)
def test_the_mask_allows_what_may_come_next(kind: str, text: str, so_far: str, expected: bytes) -> None:
    assert allowed(kind, text, so_far) == set(expected)


def test_the_end_is_allowed_where_the_text_may_end_and_control_tokens_never() -> None:
    assert EOS in allowed("regex", "ab*", "a")
    assert EOS not in allowed("regex", "ab", "a")
    assert TURN_START not in allowed("regex", "(.|\n)*")


def test_a_complete_text_is_known() -> None:
    matcher = COMPILER.compile(Constraint(kind="regex", text="ab"))
    matcher.accept(ord("a"))
    assert not matcher.is_complete
    matcher.accept(ord("b"))
    assert matcher.is_complete


def test_matchers_of_one_constraint_do_not_share_their_progress() -> None:
    one, other = (COMPILER.compile(Constraint(kind="regex", text="ab")) for _ in range(2))
    one.accept(ord("a"))
    other.accept(ord("a"))
    copy = one.copy()
    one.accept(ord("b"))
    assert one.is_complete
    assert not copy.is_complete


def test_a_masked_token_is_refused_typed() -> None:
    matcher = COMPILER.compile(Constraint(kind="regex", text="ab"))
    with pytest.raises(InvalidGrammar):
        matcher.accept(ord("z"))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("nonsense", ""),
        ("json_schema", ""),
        ("json_schema", "{"),
        ("json_schema", "[]"),
        ("json_schema", '{"type": "nonsense"}'),
        ("json_schema", '{"$ref": "http://elsewhere/schema"}'),
        ("json_schema", '{"type":"array","items":' * 5000 + "{}" + "}" * 5000),
        ("json_schema", '{"type": "string", "pattern": "(?=a)"}'),
        ("regex", "(a"),
        ("regex", "(" * 20_000 + ")" * 20_000),
        ("gbnf", "root ::= ("),
        ("gbnf", "root ::= " + "(" * 20_000),
        ("lark", "start: ("),
        ("lark", "start: other"),
        ("regex", "a" * (CONSTRAINT_BYTES_MAX + 1)),
        ("regex", "\ud800"),
        ("lark", "\0"),
    ],
    ids=lambda value: value[:30].encode("ascii", "replace").decode(),
)
def test_what_cannot_be_compiled_is_a_typed_error_of_one_line(kind: str, text: str) -> None:
    with pytest.raises(InvalidGrammar) as caught:
        COMPILER.compile(Constraint(kind=kind, text=text))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["json_schema", "regex", "gbnf", "lark"]), st.text('{}[]()|*+?"\\:=./ab1 \n', max_size=60)
)
def test_any_text_compiles_or_is_refused_typed(kind: str, text: str) -> None:
    try:
        COMPILER.compile(Constraint(kind=kind, text=text))
    except InvalidGrammar:
        return


def test_white_space_between_json_tokens_is_bounded() -> None:
    schema = json.dumps({"type": "object"})
    assert ord(" ") in allowed("json_schema", schema, "{")
    assert ord(" ") not in allowed("json_schema", schema, "{" + " " * 16)
