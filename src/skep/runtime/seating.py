"""Who gets a slot, and when a prompt is computed: admission, giving way, and waiting for another's same beginning."""

from skep.errors import SkepError
from skep.lifecycle.job import JobEvent
from skep.runtime.backend import BackendSession
from skep.runtime.job import Job
from skep.runtime.sequence import Sequence
from skep.runtime.state import EngineState
from skep.runtime.text import TextStream

PARK_AFTER_S = 0.5
# Times `reuse_prefix_min`: what another's computing must spare a prompt to be worth waiting for.
FOLLOW_PREFIXES_MIN = 4


def can_admit(core: EngineState) -> bool:
    """True when a waiting job would get a slot now."""
    return not core.is_tight and core.roster.has_idle_slot


def _park(core: EngineState, now: float) -> None:
    """Where everybody waits for readers that stay behind, the one that has been behind longest gives way.

    Not in deterministic mode: what it computed would be computed in other chunks.
    """
    roster = core.roster
    longest = roster.longest_paused()
    if core.is_tight or core.options.deterministic or roster.has_idle_slot or longest is None:
        return
    if now - longest.job.paused_at >= PARK_AFTER_S:
        roster.park(longest, now=now)


def admit(core: EngineState, now: float) -> None:
    """Give idle slots to those who wait: jobs that had to give way first, then newcomers, in turn over clients."""
    roster, session = core.roster, core.session
    _park(core, now)
    while session is not None and roster.waiting and can_admit(core):
        if roster.preempted:
            _seat(core, roster.preempted.pop(), session)
            continue
        job = roster.queue.pop()
        try:
            seq = _begin(core, job, session, now)
        except SkepError as error:
            core.fail(job, error)
            continue
        core.counters.prompt_tokens += len(seq.tokens)
        _seat(core, seq, session)


def _begin(core: EngineState, job: Job, session: BackendSession, now: float) -> Sequence:
    request = job.generation
    return Sequence(
        job,
        sampler=session.make_sampler(job.sampling, prompt=request.prompt),
        stream=TextStream(core.pieces, request.stop),
        now=now,
    )


def _seat(core: EngineState, seq: Sequence, session: BackendSession) -> None:
    placement = core.prefixes.place(core.roster.slots, seq.tokens)
    assert placement is not None
    cached = core.prefixes.carry_out(placement, session)
    seq.job.advance(JobEvent.ADMITTED)
    # Never one that waits itself: two could wait for each other.
    others = [other for other in core.roster.prefilling if other.donor is None]
    donors = [(core.prefixes.shared(other, seq.tokens), other) for other in others]
    core.roster.seat(seq, placement.slot, cached=cached)
    length, donor = max(donors, key=lambda found: found[0], default=(0, None))
    if length - cached >= FOLLOW_PREFIXES_MIN * core.options.reuse_prefix_min:
        seq.donor, seq.donor_length = donor, length
    else:
        _start(core, seq)


def _start(core: EngineState, seq: Sequence) -> None:
    """Its prompt is computed from now on; what the cache spares is known."""
    seq.donor = None
    core.counters.prefix_queries += len(seq.tokens)
    core.counters.prefix_hits += seq.computed
    if not seq.is_started:
        seq.is_started = True
        seq.job.cached_tokens = seq.computed
        core.narrator.start(seq)
        core.touched.append(seq.job.outbox)


def prompts(core: EngineState, session: BackendSession) -> list[Sequence]:
    """Return the sequences whose prompt is to be computed now; others wait for one that begins as they do."""
    for seq in [seq for seq in core.roster.prefilling if seq.donor is not None]:
        donor = seq.donor
        if donor is not None and donor.slot is not None and donor.computed < seq.donor_length:
            continue
        seq.computed = seq.border = core.prefixes.top_up(core.roster.slots, seq, session)
        _start(core, seq)
        core.roster.take_out(seq)
        core.roster.sort_in(seq)
    if core.is_neighbours_turn and core.roster.decoding:
        return []
    return [seq for seq in core.roster.prefilling if seq.donor is None]
