"""What the fake thinks next: a pure function of the tokens so far.

Every cached position carries a `Thought`: a digest of its whole history and where in its answer the model stands.
A row is computed from the thought cached one position before it, so an engine that mixes up sequences, positions
or prefixes produces other text, and tests see it.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from skep.runtime.fake.script import FakeScript
from skep.runtime.fake.vocabulary import EOS, TURN_END, TURN_START, VOCAB_SIZE_MIN, vocabulary

# Knuth's MMIX linear congruential generator: cheap, and every bit of history reaches the high bits.
_MULTIPLIER, _INCREMENT, _MASK = 6364136223846793005, 1442695040888963407, 2**64 - 1
_ALPHABET = [character.encode() for character in "etaoinshrdlucmfwyp      .,é🐝"]
_FIRST_BYTES = {spelling[0]: spelling[1:] for spelling in _ALPHABET}
_NOISE_ROWS = 64
_PEAK, _RUNNER_UP = 12.0, 9.0
_RUNNERS_UP = 3


class Thought(NamedTuple):
    """The state after one token.

    `reply_at` counts the tokens of the scripted text already said, `turn_at` the tokens since the turn began
    (−1: no turn); `pending` holds the bytes that an unfinished character still needs, `arithmetic` digests how rows
    were batched.
    """

    digest: int
    reply_at: int
    turn_at: int
    pending: bytes
    arithmetic: int


BLANK = Thought(0, 0, -1, b"", 0)


class Mind:
    """One loaded fake model's weights, so to speak."""

    def __init__(self, script: FakeScript) -> None:
        self._script = script
        self._words = vocabulary(script.vocab)
        self._reply = self._words.tokenize(script.text, parse_special=False)
        self._fallback = _fallback_table(self._reply)
        generator = np.random.default_rng(20)
        self._noise = generator.uniform(-6.0, 0.0, (_NOISE_ROWS, script.vocab)).astype(np.float32)

    def after(self, before: Thought, token: int, *, rows: int, index: int) -> Thought:
        """Return the thought after `token`, computed as row `index` of `rows`."""
        digest = (before.digest * _MULTIPLIER + _INCREMENT + token) & _MASK
        turn_at = before.turn_at + (before.turn_at >= 0) if token != TURN_START else 0
        if before.pending and before.pending[0] == token:
            pending = before.pending[1:]
        else:
            pending = _FIRST_BYTES.get(token, b"")
        arithmetic = (before.arithmetic * _MULTIPLIER + rows * 4096 + index + _INCREMENT) & _MASK
        return Thought(digest, self._advance(before.reply_at, token), turn_at, pending, arithmetic)

    def favourite(self, thought: Thought) -> int:
        """Return the most likely next token."""
        if self._reply:
            return self._reply[thought.reply_at] if thought.reply_at < len(self._reply) else EOS
        if thought.pending:
            return thought.pending[0]
        if thought.turn_at >= self._script.turn_tokens > 0:
            return TURN_END
        words = self._script.vocab - VOCAB_SIZE_MIN
        if words and (thought.digest >> 30) % 4 == 0:
            return VOCAB_SIZE_MIN + (thought.digest >> 33) % words
        return _ALPHABET[(thought.digest >> 33) % len(_ALPHABET)][0]

    def logits(self, thought: Thought) -> npt.NDArray[np.float32]:
        """Return a new array (vocab,): a peak, a few runners-up, and noise that the history chooses."""
        scores: npt.NDArray[np.float32] = self._noise[(thought.digest >> 40) % _NOISE_ROWS].copy()
        if not self._reply and not thought.pending:
            for shift in range(_RUNNERS_UP):
                scores[_ALPHABET[(thought.digest >> (20 + 5 * shift)) % len(_ALPHABET)][0]] = (
                    _RUNNER_UP - shift
                )
        scores[self.favourite(thought)] = _PEAK
        scores[(thought.digest >> 17) % len(scores)] += np.float32(((thought.digest >> 24) & 0xFF) / 1024)
        if self._script.batch_noise:
            scores += np.float32(((thought.arithmetic >> 40) & 0xFFFF) * 1e-6)
        return scores

    def embedding(self, thought: Thought, size: int) -> npt.NDArray[np.float32]:
        """Return a unit vector that the history chooses."""
        vector = np.random.default_rng(thought.digest).standard_normal(size)
        return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)

    def _advance(self, reply_at: int, token: int) -> int:
        """Follow the scripted reply as Knuth, Morris and Pratt follow a pattern."""
        reply, at = self._reply, reply_at
        while at and (at == len(reply) or reply[at] != token):
            at = self._fallback[at - 1]
        return at + 1 if reply and reply[at] == token else at


def _fallback_table(pattern: list[int]) -> list[int]:
    """Return, for every prefix, the length of its longest proper border (Knuth, Morris and Pratt 1977)."""
    table = [0] * len(pattern)
    length = 0
    for index in range(1, len(pattern)):
        while length and pattern[index] != pattern[length]:
            length = table[length - 1]
        length += pattern[index] == pattern[length]
        table[index] = length
    return table
