"""Mutated grammars in a child process: each compiles or is refused typed, none ends or hangs the process."""

import subprocess
import sys

import pytest

CHILD = """
import random, sys
from pathlib import Path
import numpy as np
from skep.errors.runtime import InvalidGrammar
from skep.runtime.backend import LoadOptions
from skep.runtime.constraint import Compiler
from skep.runtime.fake import FakeBackend
from skep.runtime.request import Constraint

SEEDS = {
    "json_schema": [
        '{"type": "object", "properties": {"a": {"type": "integer", "minimum": 0}}, "required": ["a"]}',
        '{"type": "array", "items": {"anyOf": [{"const": 1}, {"enum": ["x", "y"]}]}, "minItems": 1, "maxItems": 4}',
        '{"$defs": {"t": {"type": "object", "properties": {"next": {"$ref": "#/$defs/t"}}}}, "$ref": "#/$defs/t"}',
        '{"type": "string", "pattern": "^[a-z]{2,5}$", "format": "date-time", "maxLength": 9}',
    ],
    "regex": ["[a-z]+(-[0-9]{1,3})*", "(a|b|cd)*x{2,}", "\\\\d+\\\\.\\\\w?", "[^\\\\n]{0,100}"],
    "gbnf": ['root ::= item+\\nitem ::= "- " [^\\\\n]+ "\\\\n"', 'root ::= ("a" | "b"){2,5} rest?\\nrest ::= [0-9]*'],
    "lark": ['start: word (" " word)*\\nword: /[a-z]+/', 'start: "{" pair ("," pair)* "}"\\npair: /[a-z]/ ":" /[0-9]/'],
}
seed, count = int(sys.argv[1]), int(sys.argv[2])
chooser = random.Random(seed)
model = FakeBackend().load(Path("fake:x"), LoadOptions())
compiler = Compiler(model)
compiled = refused = 0
for _ in range(count):
    kind = chooser.choice(list(SEEDS))
    text = list(chooser.choice(SEEDS[kind]))
    for _ in range(chooser.randint(1, 6)):
        at = chooser.randrange(len(text) + 1)
        match chooser.randrange(4):
            case 0: text[at:at + chooser.randint(1, 5)] = []
            case 1: text[at:at] = chooser.choice('{}[]()|*+?":,0123456789azAZ\\\\/^$-. \\n\\0é')
            case 2: text[at:at] = text[chooser.randrange(len(text) + 1):][:30]
            case 3: text[at:at] = chooser.choice('([{*') * chooser.randint(1, 200)
    try:
        matcher = compiler.compile(Constraint(kind=kind, text="".join(text)))
        for _ in range(5):
            logits = np.zeros(model.info.vocab_size, dtype=np.float32)
            matcher.mask(logits)
            allowed = np.flatnonzero(np.isfinite(logits))
            if matcher.is_complete or not len(allowed):
                break
            token = int(chooser.choice(allowed))
            if token in model.info.end_tokens:
                break
            matcher.accept(token)
        compiled += 1
    except InvalidGrammar:
        refused += 1
print(compiled, refused)
"""


def fuzz(*, seed: int, count: int, within_s: float) -> tuple[int, int]:
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(seed), str(count)],
        capture_output=True,
        text=True,
        check=False,
        timeout=within_s,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    compiled, refused = map(int, child.stdout.split())
    return compiled, refused


def test_mutated_grammars_compile_or_are_refused_typed() -> None:
    compiled, refused = fuzz(seed=1, count=600, within_s=90)
    assert compiled > 50
    assert refused > 50


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(4))
def test_a_hundred_thousand_mutated_grammars_end_no_process(seed: int) -> None:
    fuzz(seed=100 + seed, count=25_000, within_s=1700)
