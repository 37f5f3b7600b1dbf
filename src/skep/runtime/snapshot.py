"""A moment of an engine, as figures."""

from skep.runtime.core import EngineCore
from skep.runtime.request import EngineStats


def snapshot(core: EngineCore, *, is_draining: bool) -> EngineStats:
    """Return a moment of a core, cheaply, from any thread."""
    roster, counters = core.roster, core.counters
    slots = len(roster.slots)
    running = [slot.sequence for slot in roster.slots if slot.sequence is not None]
    return EngineStats(
        slots_total=slots,
        slots_free=slots - len(running),
        running=len(running),
        waiting=roster.waiting + len(core.lane.waiting),
        paused=len(roster.paused) + len(roster.parked),
        kv_used=sum(seq.computed for seq in running) / (slots * core.options.session.context),
        prompt_tokens_total=counters.prompt_tokens,
        generated_tokens_total=counters.generated_tokens,
        prefix_queries_total=counters.prefix_queries,
        prefix_hits_total=counters.prefix_hits,
        cancelled_total=counters.cancelled,
        failed_total=counters.failed,
        finished_total=counters.finished,
        preempted_total=counters.preempted,
        interrupted_total=counters.interrupted,
        reopened_total=counters.reopened,
        steps_total=counters.steps,
        draining=is_draining,
    )
