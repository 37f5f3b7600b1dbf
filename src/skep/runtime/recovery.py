"""What the engine does when a decode does not go well: interrupted, out of cache, or failed."""

import logging

from skep.errors import SkepError
from skep.errors.runtime import DeviceError, EngineFault, NoCacheSlot
from skep.lifecycle.job import JobEvent, JobState
from skep.runtime.backend import BackendSession
from skep.runtime.roster import Roster
from skep.runtime.scheduler import Batch
from skep.runtime.sequence import Sequence
from skep.runtime.slots import truncate
from skep.runtime.state import EngineState

_log = logging.getLogger(__name__)


def repair(core: EngineState, batch: Batch, session: BackendSession) -> None:
    """After an interrupt, keep what was computed, and forget what has no logits to sample from."""
    session.resume()
    core.counters.interrupted += 1
    core.is_neighbours_turn = True
    for seq, length, row in batch.parts:
        done = session.sequence_position_max(seq.index) + 1
        keep = min(done, seq.computed + length - (row >= 0))
        if core.options.deterministic:
            keep = seq.computed  # A chunk counts whole or not at all.
        if keep < done and not truncate(session, seq.index, keep):
            keep = 0
        seq.computed, seq.border = keep, min(seq.border, keep)
        core.roster.take_out(seq)
        core.roster.sort_in(seq)


def relieve(core: EngineState, error: NoCacheSlot, session: BackendSession) -> None:
    """Make cache room: idle prefixes give way first, then jobs whose reader is behind, then the youngest.

    A job that gives way queues again, and loses nothing.
    """
    roster = core.roster
    idle = [slot for slot in roster.slots if slot.sequence is None and slot.tokens]
    if idle:
        oldest = min(idle, key=lambda slot: slot.idle_since)
        session.sequence_remove(oldest.index, 0, -1)
        oldest.tokens, oldest.border = [], 0
        return
    if (
        roster.running == 1 or core.options.deterministic
    ):  # Recomputed in other chunks it would be other bits.
        youngest = _youngest(roster)
        core.fail(youngest.job, error, youngest)
        return
    core.counters.preempted += 1
    core.is_tight = True
    victim = roster.longest_paused() or _youngest(roster)
    session.sequence_remove(victim.index, 0, -1)
    victim.computed = 0
    if victim.job.state is JobState.PAUSED:
        roster.park(victim, now=victim.admitted_at)
        return
    roster.unseat(victim, now=victim.admitted_at)
    victim.job.advance(JobEvent.PREEMPTED)
    roster.preempted.append(victim)


def _youngest(roster: Roster) -> Sequence:
    return max(roster.active(), key=lambda seq: seq.admitted_at)


def reopen(core: EngineState, error: SkepError) -> None:
    """The session is spoiled: its jobs fail with the cause, and a new session takes its place."""
    _log.error("a decode failed, the context is opened again: %s", error)
    for seq in (*core.roster.active(), *core.roster.unseated()):
        core.drop(seq.job, error, JobEvent.FAULT)
    core.roster.forget_caches()
    assert core.session is not None
    core.session.close()
    core.session = None
    core.faults += 1
    if core.faults >= core.options.faults_max:
        fault = EngineFault(f"{core.faults} decodes in a row failed, the last one: {error}")
        # A device's error keeps its code: whoever owns the worker tells by it that the device is to blame.
        core.give_up(error if isinstance(error, DeviceError) else fault)
        return
    try:
        core.open()
    except SkepError as again:
        core.give_up(EngineFault(f"the context could not be opened again: {again}", cause=again))
    else:
        core.counters.reopened += 1
