"""What an engine counted since it was opened, and a moment of it. Written by its thread, read by any."""

from typing import TYPE_CHECKING

from skep.runtime.request import EngineStats

if TYPE_CHECKING:
    from skep.runtime.core import EngineCore


class Counters:
    """Totals; each only grows."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self.prefix_queries = 0
        self.prefix_hits = 0
        self.finished = 0
        self.cancelled = 0
        self.failed = 0
        self.preempted = 0
        self.interrupted = 0
        self.reopened = 0
        self.steps = 0


def snapshot(core: "EngineCore", *, is_draining: bool) -> EngineStats:
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
