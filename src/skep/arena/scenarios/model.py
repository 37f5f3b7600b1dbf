"""What a scenario is: a trace, the nodes it meets, the pods that are wanted, and what the workload should ask for."""

from functools import lru_cache

import msgspec

from skep.arena.nodes import NodePlan
from skep.arena.trace.generate import WorkloadPlan, trace_of
from skep.arena.trace.trace import Trace
from skep.arena.workload import Resources, WorkloadRef


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One task. The first of `plans` is the workload that the policy may change; the others are its neighbours.

    `reference` is the least that solves it, in steps of the actions; `is_held_out` keeps it out of training.
    """

    name: str
    about: str
    plans: tuple[WorkloadPlan, ...]
    nodes: tuple[NodePlan, ...]
    target: int
    reference: Resources | None = None
    duration_s: float = 60.0
    steps_max: int = 30
    is_held_out: bool = False

    @property
    def workload(self) -> WorkloadRef:
        """The workload that is to be mended."""
        return WorkloadRef(self.plans[0].namespace, self.plans[0].name, self.plans[0].kind)

    @property
    def trace(self) -> Trace:
        """The scenario's trace; neighbours are applied before the workload."""
        return _trace(self)


@lru_cache(maxsize=256)
def _trace_of(code: bytes, name: str) -> Trace:
    return trace_of(msgspec.msgpack.decode(code, type=list[WorkloadPlan]), name=name)


def _trace(scenario: Scenario) -> Trace:
    plans = [*scenario.plans[1:], scenario.plans[0]]
    return _trace_of(msgspec.msgpack.encode(plans), scenario.name)
