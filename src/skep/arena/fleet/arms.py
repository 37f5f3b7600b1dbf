"""The placement policies that are compared: the queen's own, parts of it, and the usual baselines.

`skep` and `skep-no-affinity` call `skep.policy.placement.place`, the code that the gateway runs.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from skep.arena.rng import Rng
from skep.policy.placement import Ask, ReplicaLoad, has_room, place

Arm = Callable[[Ask, Sequence[ReplicaLoad], Rng], str | None]
"""Returns the replica's id, or None when the request must wait."""


def skep_arm(ask: Ask, loads: Sequence[ReplicaLoad], rng: Rng) -> str | None:  # noqa: ARG001 - the arms' signature
    """Place as the queen does."""
    return place(ask, loads).replica_id


def without_affinity(ask: Ask, loads: Sequence[ReplicaLoad], rng: Rng) -> str | None:  # noqa: ARG001 - the arms' signature
    """Place as the queen does a request without session or prefix: the better of two choices."""
    return place(Ask(salt=ask.salt, excluded=ask.excluded), loads).replica_id


def _free(ask: Ask, loads: Sequence[ReplicaLoad]) -> list[ReplicaLoad]:
    return [load for load in loads if load.replica_id not in ask.excluded and has_room(load)]


def random_arm(ask: Ask, loads: Sequence[ReplicaLoad], rng: Rng) -> str | None:
    """Place anywhere that has room."""
    free = _free(ask, loads)
    return free[rng.below(len(free))].replica_id if free else None


def least_busy(ask: Ask, loads: Sequence[ReplicaLoad], rng: Rng) -> str | None:  # noqa: ARG001 - the arms' signature
    """Place on the replica with the least load, the first of equals."""
    free = _free(ask, loads)
    return min(free, key=lambda load: load.load).replica_id if free else None


def round_robin() -> Arm:
    """Return an arm that takes replicas in turn, leaving full ones out."""
    turn = 0

    def arm(ask: Ask, loads: Sequence[ReplicaLoad], rng: Rng) -> str | None:  # noqa: ARG001 - the arms' signature
        nonlocal turn
        for _ in range(len(loads)):
            load = loads[turn % len(loads)]
            turn += 1
            if load.replica_id not in ask.excluded and has_room(load):
                return load.replica_id
        return None

    return arm


ARMS: Final[Mapping[str, Callable[[], Arm]]] = MappingProxyType(
    {
        "skep": lambda: skep_arm,
        "skep-no-affinity": lambda: without_affinity,
        "least-busy": lambda: least_busy,
        "round-robin": round_robin,
        "random": lambda: random_arm,
    }
)
"""Makers of arms by name; each run gets a fresh one."""
