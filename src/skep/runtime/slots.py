"""Slots, and where a new prompt goes: to the slot whose left-over cache spares it the most work.

A slot that is idle keeps what its last job computed. A prompt that begins the same way is placed there and only the
rest is computed; when the beginning stands in a slot that is busy, or whose own tail is worth more, it is copied.
"""

from collections.abc import Sequence as TokenSequence
from typing import NamedTuple, Protocol

from skep.runtime.backend import BackendSession


class Occupant(Protocol):
    """Whoever sits in a slot: its tokens, how many of them are cached, and how many of those in whole chunks."""

    index: int
    tokens: list[int]
    computed: int
    border: int
    slot: "Slot | None"


class Slot:
    """One sequence of the session. `tokens` is what its cache holds while it is idle."""

    __slots__ = ("border", "idle_since", "index", "sequence", "tokens")

    def __init__(self, index: int) -> None:
        self.index = index
        self.tokens: list[int] = []
        self.border = 0
        self.idle_since = 0.0
        self.sequence: Occupant | None = None

    def cached(self) -> tuple[list[int], int, int]:
        """Return tokens, how many of them are cached, and how many of those were computed in whole chunks."""
        if self.sequence is None:
            return self.tokens, len(self.tokens), self.border
        return self.sequence.tokens, self.sequence.computed, self.sequence.border


class Placement(NamedTuple):
    """Where a prompt goes, where its first `cached` tokens are taken from (None: nowhere, or in place)."""

    slot: Slot
    source: Slot | None
    cached: int


def common_prefix(first: list[int], second: list[int], limit: int) -> int:
    """Return how many of the first `limit` tokens agree, by bisection over slices that C compares."""
    low, high = 0, min(limit, len(first), len(second))
    if first[:high] == second[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle
    return low


class PrefixCache:
    """Decides placements and carries them out on a session."""

    def __init__(self, *, chunk_rows: int | None, length_min: int, is_enabled: bool) -> None:
        self._chunk_rows = chunk_rows  # Set in deterministic mode: reuse ends at a multiple of it.
        self._length_min = length_min
        self._is_enabled = is_enabled

    def place(self, slots: TokenSequence[Slot], tokens: list[int]) -> Placement | None:
        """Return the best placement, or None when every slot is busy."""
        idle = [slot for slot in slots if slot.sequence is None]
        if not idle:
            return None
        # Nothing to lose first, then what was idle longest.
        oldest = min(idle, key=lambda slot: (bool(slot.tokens), slot.idle_since, slot.index))
        if not self._is_enabled:
            return Placement(oldest, None, 0)
        # An idle source before a busy one of the same worth: it needs no copy.
        cached, source = max(
            ((self._reusable(slot, tokens), slot) for slot in slots),
            key=lambda found: (found[0], found[1].sequence is None, -found[1].index),
        )
        if cached < self._length_min:
            return Placement(oldest, None, 0)
        if source.sequence is None and (oldest is source or len(source.tokens) - cached <= cached):
            return Placement(source, None, cached)
        return Placement(oldest, source, cached)

    def _reusable(self, slot: Slot, tokens: list[int]) -> int:
        """Return how many tokens a slot can spare this prompt; the last one is always computed, for its logits."""
        have, length, border = slot.cached()
        limit = min(len(tokens) - 1, length if self._chunk_rows is None else border)
        if limit < self._length_min or have[0] != tokens[0]:
            return 0
        common = common_prefix(have, tokens, limit)
        return common if self._chunk_rows is None else common - common % self._chunk_rows

    def shared(self, donor: Occupant, tokens: list[int]) -> int:
        """Return how many tokens a prompt could take from a sequence that has computed all of its own."""
        if not self._is_enabled:
            return 0
        common = common_prefix(donor.tokens, tokens, len(tokens) - 1)
        return common if self._chunk_rows is None else common - common % self._chunk_rows

    def top_up(self, slots: TokenSequence[Slot], seq: Occupant, session: BackendSession) -> int:
        """Take over what other slots have computed meanwhile; return how many tokens a seated sequence has then."""
        assert seq.slot is not None
        others = [slot for slot in slots if slot is not seq.slot]
        cached, source = max(
            ((self._reusable(slot, seq.tokens), slot) for slot in others), key=lambda found: found[0]
        )
        if cached <= seq.computed:
            return seq.computed
        return self.carry_out(Placement(seq.slot, source, cached), session)

    def carry_out(self, placement: Placement, session: BackendSession) -> int:
        """Make the slot's cache hold exactly the reused prefix; return its length, 0 where the cache cannot."""
        slot, source, cached = placement
        if source is not None and source is not slot:
            session.sequence_remove(slot.index, 0, -1)
            if session.options.unified_cache:
                session.sequence_copy(source.index, slot.index, 0, cached)
                return cached
            session.sequence_copy(source.index, slot.index, 0, -1)
        return cached if truncate(session, slot.index, cached) else 0


def truncate(session: BackendSession, sequence: int, length: int) -> bool:
    """Keep the first `length` cached positions; False when the cache cannot, and the sequence is empty then."""
    if session.sequence_remove(sequence, length, -1):
        return True
    session.sequence_remove(sequence, 0, -1)
    return False
