"""What is seen of a simulated workload, and the state vector that policies learn from."""

from typing import Final

import msgspec

from skep.arena.workload import Resources

STATE_FIELDS: Final = ("cpu", "memory", "pending", "gap", "replicas")
"""The state vector's entries, each divided by its scale: 4000 m, 4096 MiB, 5, 5, 8 (replicas clipped at 1)."""
CPU_SCALE_M: Final = 4000
MEMORY_SCALE_MIB: Final = 4096
PENDING_SCALE: Final = 5
REPLICAS_SCALE: Final = 8
MIB: Final = 1 << 20


class NodeUsage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What pods ask of one node, as shares of what it can give (0 to 1), and how many run there."""

    name: str
    cpu: float
    memory: float
    pods: int


class Observation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The pods of one workload when its simulation was looked at.

    `reasons` counts why pods are pending, in the scheduler's words; `restarts` and `oom_killed` count containers.
    A driver that cannot know a detail leaves it empty; one that cannot count pods raises instead.
    """

    ready: int
    pending: int
    total: int
    restarts: int = 0
    oom_killed: int = 0
    reasons: dict[str, int] = {}
    nodes: tuple[NodeUsage, ...] = ()

    def is_goal(self, target: int) -> bool:
        """Tell whether exactly the wanted pods are there and ready, and nothing is pending."""
        return self.ready == self.total == target and self.pending == 0


def state_vector(
    observation: Observation, resources: Resources, target: int
) -> tuple[float, float, float, float, float]:
    """Return the five numbers of `STATE_FIELDS`; `gap` is negative where there are too many pods."""
    return (
        resources.cpu_m / CPU_SCALE_M,
        resources.memory_bytes / MIB / MEMORY_SCALE_MIB,
        observation.pending / PENDING_SCALE,
        (target - observation.total) / PENDING_SCALE,
        min(1.0, resources.replicas / REPLICAS_SCALE),
    )
