"""What the parts of an engine ask of it: who sits where, what it counted, and how a job ends."""

from typing import Protocol

from skep.errors import SkepError
from skep.lifecycle.job import JobEvent
from skep.runtime.backend import BackendSession
from skep.runtime.counters import Counters
from skep.runtime.job import Job
from skep.runtime.narrator import Narrator
from skep.runtime.options import EngineOptions
from skep.runtime.outbox import Outbox
from skep.runtime.roster import Roster
from skep.runtime.sequence import Sequence
from skep.runtime.slots import PrefixCache
from skep.runtime.text import Pieces


class EngineState(Protocol):
    """An engine's core, as seating and recovery see it.

    `is_tight`: the cache is full, nobody is admitted until somebody leaves. `is_neighbours_turn`: the next step computes
    no prompt. `faults` counts failed decodes in a row, `touched` the outboxes whose readers are to be woken.
    """

    options: EngineOptions
    roster: Roster
    counters: Counters
    prefixes: PrefixCache
    pieces: Pieces
    narrator: Narrator
    touched: list[Outbox]
    session: BackendSession | None
    is_tight: bool
    is_neighbours_turn: bool
    faults: int

    def open(self) -> None:
        """Open the session in this thread. Raises: InsufficientMemory, InvalidInput, Closed."""
        ...

    def fail(
        self, job: Job, error: SkepError, seq: Sequence | None = None, *, event: JobEvent = JobEvent.FAULT
    ) -> None:
        """End a job that is in no list but its sequence's, if it has one."""
        ...

    def drop(self, job: Job, error: SkepError, event: JobEvent) -> None:
        """End a job that may be anywhere."""
        ...

    def give_up(self, fault: SkepError) -> None:
        """Fail every job, now and from now on."""
        ...
