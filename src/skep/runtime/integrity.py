"""Does the engine agree with itself? Looked at between two steps; an empty list means yes."""

from collections import Counter
from collections.abc import Iterator

from skep.lifecycle.job import JobState
from skep.runtime.core import EngineCore

TERMINAL_EVENTS_MAX = 2  # What may be put beyond an outbox's bound: held-back text, and the end.


def violations(core: EngineCore) -> list[str]:
    """Return every disagreement, in words. Belongs to the engine's thread."""
    return [*_jobs(core), *_slots(core), *_lists(core), *_waiting(core), *_caches(core)]


def _jobs(core: EngineCore) -> Iterator[str]:
    roster = core.roster
    known = [
        *roster.queue,
        *core.lane.waiting,
        *(seq.job for seq in roster.unseated()),
        *(seq.job for seq in roster.active()),
    ]
    for job_id, count in Counter(job.id for job in known).items():
        if count > 1:
            yield f"job {job_id} stands in {count} places"
    for job in known:
        if core.jobs.get(job.id) is not job:
            yield f"job {job.id} is held, but not registered"
        if job.is_over:
            yield f"job {job.id} is held, but {job.state}"
        if len(job.outbox) > core.options.events_max + TERMINAL_EVENTS_MAX:
            yield f"the outbox of job {job.id} holds {len(job.outbox)} events"
    if core.fault is None and core.roster.running > len(roster.slots):
        yield f"{roster.running} jobs run in {len(roster.slots)} slots"


def _slots(core: EngineCore) -> Iterator[str]:
    for slot in core.roster.slots:
        seq = slot.sequence
        if seq is not None and (seq.slot is not slot or seq.index != slot.index):
            yield f"slot {slot.index} holds a sequence that thinks it is in another"
        if seq is not None and slot.tokens:
            yield f"slot {slot.index} is busy and still remembers an idle cache"
    seated = {id(slot.sequence) for slot in core.roster.slots if slot.sequence is not None}
    if seated != {id(seq) for seq in core.roster.active()}:
        yield "the slots and the lists hold different sequences"


def _lists(core: EngineCore) -> Iterator[str]:
    roster = core.roster
    for seq in roster.active():
        if not 0 <= seq.computed < len(seq.tokens):
            yield f"job {seq.job.id} computed {seq.computed} of {len(seq.tokens)} tokens"
    for seq in roster.decoding:
        if seq.needs != 1 or seq.is_prefilling:
            yield f"job {seq.job.id} decodes but needs {seq.needs} tokens"
    for seq in roster.prefilling:
        if seq.needs < 1 or not seq.is_prefilling:
            yield f"job {seq.job.id} prefills but needs {seq.needs} tokens"


def _waiting(core: EngineCore) -> Iterator[str]:
    roster = core.roster
    for seq in (*roster.paused, *roster.parked):
        if seq.job.state is not JobState.PAUSED:
            yield f"job {seq.job.id} is listed as paused but {seq.job.state}"
    for seq in roster.unseated():
        if seq.slot is not None or seq.computed:
            yield f"job {seq.job.id} has no slot and still thinks it has one"
    for job in roster.queue:
        if job.state is not JobState.QUEUED:
            yield f"job {job.id} is in the queue but {job.state}"


def _caches(core: EngineCore) -> Iterator[str]:
    session = core.session
    if session is None:
        return
    for slot in core.roster.slots:
        _, cached, _ = slot.cached()
        length = session.sequence_position_max(slot.index) + 1
        if length != cached:
            yield f"slot {slot.index} thinks that {cached} positions are cached, and the session has {length}"
