"""What one step computes: every decoding sequence's next token, and a share of the prompts that arrive.

Decoding comes first and is never held up by more than one share of prefill, so a long prompt costs its neighbours a
longer step, not a pause. Prompts are a batch of their own beside the next tokens: llama.cpp cuts a mixed batch over
separate caches in two anyway, and has every row of the first cut attend as far as the longest prompt reaches. In a
unified cache they share one pass. In deterministic mode each sequence is a batch of its own, cut at fixed borders.
"""

from collections.abc import Sequence as ListOf
from typing import NamedTuple

from skep.runtime.backend import Row
from skep.runtime.options import EngineOptions
from skep.runtime.sequence import Sequence

PREFILL_ROWS_MIN = 8
_WANTED, _UNWANTED = True, False  # A row's logits.


class Part(NamedTuple):
    """`length` tokens of one sequence; `row` is the row to sample from, −1 when its prompt goes on."""

    sequence: Sequence
    length: int
    row: int


class Batch(NamedTuple):
    """One decode: its rows, and whose they are."""

    rows: list[Row]
    parts: list[Part]

    @property
    def has_prompt(self) -> bool:
        """True when somebody's prompt is computed in it."""
        return len(self.rows) > len(self.parts)


class Scheduler:
    """Turns the sequences in slots into batches."""

    def __init__(self, options: EngineOptions) -> None:
        self._rows_max = options.session.batch_rows_max
        self._share = options.prefill_share
        self._chunk_rows = options.chunk_rows
        self._mixes = options.session.unified_cache
        self.plan = self._plan_alone if options.deterministic else self._plan_together

    def _plan_together(self, decoding: ListOf[Sequence], prefilling: ListOf[Sequence]) -> list[Batch]:
        batches = [_next_tokens(decoding)] if decoding else []
        if prefilling:
            budget = self._prefill_rows(len(decoding))
            batch = batches.pop() if batches and self._mixes else Batch([], [])
            for seq, count in zip(prefilling, split([seq.needs for seq in prefilling], budget), strict=True):
                if count:
                    _append(batch.rows, batch.parts, seq, count)
            batches.append(batch)
        return batches

    def _plan_alone(self, decoding: ListOf[Sequence], prefilling: ListOf[Sequence]) -> list[Batch]:
        batches = [
            Batch([Row(seq.tokens[-1], seq.computed, seq.index, _WANTED)], [Part(seq, 1, 0)])
            for seq in decoding
        ]
        chunks = max(1, self._prefill_rows(len(decoding)) // self._chunk_rows)
        for seq in prefilling[:chunks]:
            rows: list[Row] = []
            parts: list[Part] = []
            _append(rows, parts, seq, min(seq.needs, self._chunk_rows - seq.computed % self._chunk_rows))
            batches.append(Batch(rows, parts))
        return batches

    def _prefill_rows(self, decoding: int) -> int:
        if not decoding:
            return self._rows_max
        room = self._rows_max - (decoding if self._mixes else 0)
        return min(room, max(PREFILL_ROWS_MIN, int(self._share * self._rows_max)))


def _next_tokens(decoding: ListOf[Sequence]) -> Batch:
    rows = [Row(seq.tokens[-1], seq.computed, seq.index, _WANTED) for seq in decoding]
    return Batch(rows, [Part(seq, 1, row) for row, seq in enumerate(decoding)])


def split(needs: list[int], budget: int) -> list[int]:
    """Share a budget evenly; what the small do not need goes to the large, what is left over to the first."""
    given = [0] * len(needs)
    open_ends = sorted(range(len(needs)), key=lambda index: needs[index])
    while open_ends and budget > 0:
        index = open_ends.pop(0)
        fair = -(-budget // (len(open_ends) + 1))
        given[index] = min(needs[index], fair)
        budget -= given[index]
    return given


def _append(rows: list[Row], parts: list[Part], seq: Sequence, count: int) -> None:
    """Add the next `count` tokens of a sequence; the last token of its prompt is the one to sample from."""
    start, slot = seq.computed, seq.index
    is_last = count == seq.needs
    tokens = seq.tokens[start : start + count]
    rows.extend(Row(token, position, slot, _UNWANTED) for position, token in enumerate(tokens, start))
    if is_last:
        rows[-1] = Row(tokens[-1], start + count - 1, slot, _WANTED)
    parts.append(Part(seq, count, len(rows) - 1 if is_last else -1))
