"""Who is where: queued, preempted, prefilling, decoding, paused or parked; and in which slot."""

from collections.abc import Iterator

from skep.runtime.admission import AdmissionQueue
from skep.runtime.sequence import Sequence
from skep.runtime.slots import Slot


class Roster:
    """A sequence in a slot stands in exactly one of `prefilling`, `decoding` and `paused`, in order of admission."""

    def __init__(self, slots: int) -> None:
        self.slots = [Slot(index) for index in range(slots)]
        self.queue = AdmissionQueue()
        self.preempted: list[Sequence] = []  # They queue ahead of newcomers, the last one first.
        self.prefilling: list[Sequence] = []
        self.decoding: list[Sequence] = []
        self.paused: list[Sequence] = []
        self.parked: list[Sequence] = []  # Paused, and without a slot: somebody else wanted it.

    @property
    def waiting(self) -> int:
        """How many jobs wait for a slot."""
        return len(self.queue) + len(self.preempted)

    @property
    def running(self) -> int:
        """How many jobs are in slots."""
        return len(self.prefilling) + len(self.decoding) + len(self.paused)

    @property
    def has_idle_slot(self) -> bool:
        """True when a job could be seated."""
        return any(slot.sequence is None for slot in self.slots)

    def unseated(self) -> Iterator[Sequence]:
        """Every sequence that began and has no slot now."""
        yield from self.preempted
        yield from self.parked

    def active(self) -> Iterator[Sequence]:
        """Every sequence in a slot."""
        yield from self.prefilling
        yield from self.decoding
        yield from self.paused

    def seat(self, seq: Sequence, slot: Slot, *, cached: int) -> None:
        """Put a sequence into an idle slot of which `cached` positions are its own."""
        slot.sequence, slot.tokens, slot.border = seq, [], 0
        seq.slot, seq.index, seq.computed, seq.border = slot, slot.index, cached, cached
        self.sort_in(seq)

    def sort_in(self, seq: Sequence) -> None:
        """Put a seated sequence where what it needs next says."""
        seq.is_prefilling = seq.needs > 1
        (self.prefilling if seq.is_prefilling else self.decoding).append(seq)

    def promote(self, seq: Sequence) -> None:
        """Its prompt is computed: the sequence decodes from now on."""
        self.prefilling.remove(seq)
        seq.is_prefilling = False
        self.decoding.append(seq)

    def take_out(self, seq: Sequence) -> None:
        """Take a seated sequence out of its list; it keeps its slot."""
        for group in (self.decoding, self.prefilling, self.paused):
            if seq in group:
                group.remove(seq)
                return

    def unseat(self, seq: Sequence, *, now: float) -> None:
        """Free the slot; it keeps the sequence's cached tokens for the next job that begins as they do."""
        self.take_out(seq)
        slot = seq.slot
        assert slot is not None
        slot.tokens, slot.border, slot.idle_since = seq.tokens[: seq.computed], seq.border, now
        slot.sequence = seq.slot = None

    def longest_paused(self) -> Sequence | None:
        """The seated sequence whose reader has been behind longest."""
        return min(self.paused, key=lambda seq: seq.job.paused_at, default=None)

    def park(self, seq: Sequence, *, now: float) -> None:
        """Free a paused sequence's slot; it waits for its reader without one."""
        self.unseat(seq, now=now)
        seq.computed = 0
        self.parked.append(seq)

    def forget(self, seq: Sequence) -> None:
        """Take out a sequence that has no slot."""
        (self.preempted if seq in self.preempted else self.parked).remove(seq)

    def forget_caches(self) -> None:
        """The session is gone, and with it all that idle slots held."""
        for slot in self.slots:
            slot.tokens, slot.border = [], 0
