"""Output that must match: JSON schema, regular expression and grammars, through llguidance, for every backend.

A mask over the vocabulary is computed before each token is sampled, and applied to the logits themselves.
"""

import json
import threading
from collections.abc import Sequence
from typing import Final, cast

import llguidance
import numpy as np
import numpy.typing as npt

from skep.errors.runtime import InvalidGrammar
from skep.runtime.backend import BackendModel
from skep.runtime.request import Constraint

CONSTRAINT_BYTES_MAX: Final = 65_536
KINDS: Final = ("json_schema", "json_object", "regex", "lark", "gbnf")
MESSAGE_CHARS_MAX: Final = 300
COMPILED_MAX: Final = 32

# Below llguidance's own defaults: a constraint comes from whoever sends a request. Its steps run at about 14,000
# units of fuel a millisecond (llguidance/_lib.pyi), so one mask costs at most about 10 ms.
_LIMITS: Final = llguidance.LLParserLimits(
    initial_lexer_fuel=500_000,
    step_lexer_fuel=150_000,
    step_max_items=50_000,
    max_lexer_states=50_000,
    max_grammar_size=200_000,
    verbose_errors=False,
)
# A model that may write white space for ever will, so between JSON's tokens there is a little only.
_JSON_SPACE: Final = r"[\x20\x0A\x0D\x09]{0,16}"


class Matcher:
    """The progress of one sequence through its constraint."""

    def __init__(self, compiled: llguidance.LLMatcher, vocab_size: int) -> None:
        self._matcher = compiled
        self._vocab_size = vocab_size

    @property
    def is_complete(self) -> bool:
        """True when nothing may follow but the end."""
        return bool(self._matcher.is_stopped())

    def mask(self, logits: npt.NDArray[np.float32]) -> None:
        """Set the logits of all tokens that may not come next to −∞. Raises: InvalidGrammar (too complex)."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        allowed = np.unpackbits(bits, count=self._vocab_size, bitorder="little").view(np.bool_)
        logits[~allowed] = -np.inf

    def accept(self, token: int) -> None:
        """Follow a chosen token. Raises: InvalidGrammar (the token was masked, or the grammar is too complex)."""
        self._matcher.consume_token(token)
        self._check()

    def copy(self) -> "Matcher":
        """Return one with the same progress and a life of its own."""
        return Matcher(self._matcher.deep_copy(), self._vocab_size)

    def _check(self) -> None:
        if self._matcher.is_error():
            raise InvalidGrammar(f"the constraint failed while matching: {_line(self._matcher.get_error())}")


class _Tokens(llguidance.TokenizerWrapper):
    """A model's vocabulary as `LLTokenizer` wants it (llguidance/_tokenizer.py)."""

    is_tokenizer_wrapper = True

    def __init__(
        self, model: BackendModel
    ) -> None:  # Not the base's: that one wraps another tokenizer object.
        info = model.info
        ends = sorted(info.end_tokens, key=lambda token: (token != info.eos_token, token))
        if not ends:
            raise InvalidGrammar(f"the model {info.name} has no end token, so no constraint can end")
        self._model = model
        self.end_tokens: Sequence[int] = ends
        self.eos_token_id = ends[0]
        self.bos_token_id = info.bos_token
        self.tokens = [model.piece(token, special=True) for token in range(info.vocab_size)]
        self.special_token_ids = [
            token for token, piece in enumerate(self.tokens) if piece and not model.piece(token)
        ]

    def __call__(self, text: str | bytes) -> list[int]:
        text = text if isinstance(text, str) else text.decode("utf-8", "replace")
        return self._model.tokenize(text, add_special=False)


class Compiler:
    """Compiles constraints for one model; safe from any thread, and remembers the latest ones."""

    def __init__(self, model: BackendModel) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._tokenizer: llguidance.LLTokenizer | None = None
        self._compiled: dict[Constraint, Matcher] = {}

    def compile(self, constraint: Constraint) -> Matcher:
        """Return a fresh matcher. Takes milliseconds, for the first constraint of a big vocabulary a second.

        Raises: InvalidGrammar.
        """
        with self._lock:
            matcher = self._compiled.pop(constraint, None) or self._build(constraint)
            self._compiled[constraint] = matcher  # The latest is last.
            if len(self._compiled) > COMPILED_MAX:
                del self._compiled[next(iter(self._compiled))]
            return matcher.copy()

    def _build(self, constraint: Constraint) -> Matcher:
        grammar = _grammar(constraint)
        vocab_size = self._model.info.vocab_size
        if self._tokenizer is None:
            tokens = _Tokens(self._model)
            self._tokenizer = llguidance.LLTokenizer(
                tokens, n_vocab=vocab_size, eos_token=list(tokens.end_tokens)
            )
        compiled = llguidance.LLMatcher(self._tokenizer, grammar, limits=_LIMITS, log_level=0)
        if compiled.is_error():
            raise InvalidGrammar(
                f"the {constraint.kind} cannot be compiled: {_line(compiled.get_error())}",
                kind=constraint.kind,
            )
        return Matcher(compiled, vocab_size)


def _grammar(constraint: Constraint) -> str:
    """Return llguidance's grammar for a constraint. Raises: InvalidGrammar."""
    kind, text = constraint.kind, constraint.text
    if kind not in KINDS:
        raise InvalidGrammar(f"no constraint is called {kind!r}; there are {', '.join(KINDS)}", kind=kind)
    if len(text.encode("utf-8", "replace")) > CONSTRAINT_BYTES_MAX:
        raise InvalidGrammar(f"the {kind} is longer than {CONSTRAINT_BYTES_MAX} bytes", kind=kind)
    if kind == "json_object":
        text = json.dumps({"type": "object"})
    try:
        if kind.startswith("json"):
            grammar: str = llguidance.LLMatcher.grammar_from_json_schema(
                text, defaults={"whitespace_pattern": _JSON_SPACE}
            )
        else:
            grammar = llguidance.grammar_from(cast("llguidance.GrammarFormat", kind), text)
    except (ValueError, RecursionError) as error:
        raise InvalidGrammar(f"the {kind} cannot be read: {_line(str(error))}", kind=kind) from error
    return grammar


def _line(text: str) -> str:
    return " ".join(text.split())[:MESSAGE_CHARS_MAX]
