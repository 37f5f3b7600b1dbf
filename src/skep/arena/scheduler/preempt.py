"""Preemption: on which node, and which pods, must go so that a pod of higher priority fits (DefaultPreemption)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from skep.arena.rng import Rng
from skep.arena.scheduler.classes import PodClass
from skep.arena.scheduler.filters import fit_code
from skep.arena.scheduler.placing import Nominated, Placement, Placer
from skep.arena.scheduler.plugins import UNRESOLVABLE
from skep.arena.state import NodeState, PodState

CANDIDATES_MIN: Final = 100
CANDIDATES_PERCENT: Final = 10
TRIED_MAX: Final = 100_000
PRIORITY_SHIFT: Final = 2**31
"""Added to each victim's priority, so that fewer victims of negative priority do not look worse."""


class Budget(NamedTuple):
    """A disruption budget as preemption sees it: which classes it covers, how many pods it lets go."""

    covers: Callable[[PodClass], bool]
    allowed: int


class Candidate(NamedTuple):
    """A node with its victims, most important first, and how many of them break a budget."""

    node: NodeState
    victims: tuple[PodState, ...]
    violations: int


_Tried = tuple[int, int, tuple[int, ...]]
"""What a try depends on: the stamp of the node's pods, the table's generation, the classes of the node's guests."""


class Preemptor:
    """Tries nodes by taking their pods away from the table and putting them back."""

    def __init__(
        self, placer: Placer, pods: Mapping[int, PodState], classes: Mapping[int, PodClass], rng: Rng
    ) -> None:
        self._placer, self._pods, self._classes, self._rng = placer, pods, classes, rng
        self._tried: dict[tuple[int, int, int], tuple[_Tried, Candidate | None]] = {}

    def is_eligible(self, pod: PodState, cls: PodClass, nominated_node: NodeState | None) -> bool:
        """True unless the pod may not preempt, or its earlier victims are still leaving."""
        if not cls.template.preempts:
            return False
        if nominated_node is None:
            return True
        return not any(
            self._pods[uid].deleting and self._pods[uid].priority < pod.priority
            for uid in nominated_node.pods
        )

    def find(
        self,
        pod: PodState,
        cls: PodClass,
        placement: Placement,
        nominated: Nominated,
        budgets: Sequence[Budget],
    ) -> Candidate | None:
        """Return the best node and its victims, or None when preemption cannot help."""
        codes, nodes = placement.codes, self._placer.table.nodes
        if isinstance(codes, list):
            slots = [slot for slot, code in enumerate(codes) if code and not code & UNRESOLVABLE]
        else:
            slots = np.flatnonzero((codes != 0) & (codes & UNRESOLVABLE == 0)).tolist()
        if not slots:
            return None
        wanted = max(len(slots) * CANDIDATES_PERCENT // 100, CANDIDATES_MIN)
        offset = self._rng.below(len(slots)) if len(slots) > wanted else 0
        candidates: list[Candidate] = []
        for at in range(len(slots)):
            node = nodes[slots[(offset + at) % len(slots)]]
            found = self._try(pod, cls, node, nominated, budgets)
            if found is not None:
                candidates.append(found)
                if len(candidates) >= wanted and any(not item.violations for item in candidates):
                    break
        return min(candidates, key=self._rank) if candidates else None

    def _try(
        self, pod: PodState, cls: PodClass, node: NodeState, nominated: Nominated, budgets: Sequence[Budget]
    ) -> Candidate | None:
        classes = self._classes
        if not any(classes[id_].priority < pod.priority for id_ in node.all):
            return None
        guests = [
            other
            for uid, other in nominated.get(node.id, ())
            if uid != pod.uid and other.priority >= cls.priority
        ]
        if self._placer.is_local(cls):
            return self._try_resources(cls, node, guests, budgets)
        return self._try_whole(cls, node, guests, budgets)

    def _lower(self, cls: PodClass, node: NodeState) -> list[PodState]:
        """Return the pods that may be asked to go, most important first."""
        lower = [victim for uid in node.pods if (victim := self._pods[uid]).priority < cls.priority]
        lower.sort(key=_importance)
        return lower

    def _try_whole(
        self, cls: PodClass, node: NodeState, guests: Sequence[PodClass], budgets: Sequence[Budget]
    ) -> Candidate | None:
        """Take the pods away from the table, and put back those without which the pod still fits."""
        lower = self._lower(cls, node)
        table = self._placer.table
        gone: dict[int, PodState] = {}
        for victim in lower:
            table.remove(node, self._classes[victim.cls], retired=victim.deleting)
            gone[victim.uid] = victim
        try:
            if self._placer.code_with(cls, node, guests):
                return None
            breaking, fitting = self._split(lower, budgets)
            violations = sum(not self._reprieve(cls, node, guests, victim, gone) for victim in breaking)
            for victim in fitting:
                self._reprieve(cls, node, guests, victim, gone)
            return Candidate(node, tuple(victim for victim in lower if victim.uid in gone), violations)
        finally:
            for victim in gone.values():
                self._put_back(node, victim)

    def _try_resources(
        self, cls: PodClass, node: NodeState, guests: Sequence[PodClass], budgets: Sequence[Budget]
    ) -> Candidate | None:
        """Do the same by arithmetic on the node's row, for a pod that nothing but resources can turn away.

        What was found is kept until the node's pods or guests change, where no budget makes it depend on other nodes.
        """
        if budgets:
            return self._reckon(cls, node, guests, budgets)
        key = (cls.shape, cls.priority, node.id)
        state = (node.stamp, self._placer.table.generation, tuple(guest.id for guest in guests))
        known = self._tried.get(key)
        if known is not None and known[0] == state:
            return known[1]
        found = self._reckon(cls, node, guests, budgets)
        if len(self._tried) >= TRIED_MAX:
            self._tried.clear()
        self._tried[key] = (state, found)
        return found

    def _reckon(
        self, cls: PodClass, node: NodeState, guests: Sequence[PodClass], budgets: Sequence[Budget]
    ) -> Candidate | None:
        lower = self._lower(cls, node)
        row, cap = node.row[:], self._placer.table.caps[node.slot]
        # What fits beside the guests fits without them too, where only resources count.
        for guest in guests:
            _shift(row, guest, 1)
        for victim in lower:
            _shift(row, self._classes[victim.cls], -1)
        if fit_code(cls, row, cap):
            return None
        breaking, fitting = self._split(lower, budgets)
        gone: set[int] = set()
        violations = 0
        for group, weighs in ((breaking, 1), (fitting, 0)):
            for victim in group:
                _shift(row, self._classes[victim.cls], 1)
                if fit_code(cls, row, cap):
                    _shift(row, self._classes[victim.cls], -1)
                    gone.add(victim.uid)
                    violations += weighs
        return Candidate(node, tuple(victim for victim in lower if victim.uid in gone), violations)

    def _put_back(self, node: NodeState, victim: PodState) -> None:
        cls = self._classes[victim.cls]
        self._placer.table.add(node, cls)
        if victim.deleting:
            self._placer.table.retire(node, cls)

    def _reprieve(
        self,
        cls: PodClass,
        node: NodeState,
        guests: Sequence[PodClass],
        victim: PodState,
        gone: dict[int, PodState],
    ) -> bool:
        """Put one victim back when the pod still fits; True when it may stay."""
        self._put_back(node, victim)
        if self._placer.code_with(cls, node, guests):
            self._placer.table.remove(node, self._classes[victim.cls], retired=victim.deleting)
            return False
        del gone[victim.uid]
        return True

    def _split(
        self, victims: Sequence[PodState], budgets: Sequence[Budget]
    ) -> tuple[list[PodState], list[PodState]]:
        """Return the victims whose going would break a budget, and the others."""
        left = [budget.allowed for budget in budgets]
        breaking: list[PodState] = []
        fitting: list[PodState] = []
        for victim in victims:
            breaks = False
            for at, budget in enumerate(budgets):
                if not victim.deleting and budget.covers(self._classes[victim.cls]):
                    left[at] -= 1
                    breaks = breaks or left[at] < 0
            (breaking if breaks else fitting).append(victim)
        return breaking, fitting

    @staticmethod
    def _rank(candidate: Candidate) -> tuple[int, int, int, int, int]:
        """Return what the documented order compares, smallest first (`pickOneNodeForPreemption`)."""
        victims = candidate.victims
        if not victims:
            return (candidate.violations, -PRIORITY_SHIFT, 0, 0, 0)
        highest = victims[0].priority
        earliest = min(victim.bound_us for victim in victims if victim.priority == highest)
        return (
            candidate.violations,
            highest,
            sum(victim.priority + PRIORITY_SHIFT for victim in victims),
            len(victims),
            -earliest,
        )


def _shift(row: list[int], cls: PodClass, sign: int) -> None:
    for column, amount in cls.deltas:
        row[column] += sign * amount


def _importance(pod: PodState) -> tuple[int, int, int]:
    return (-pod.priority, pod.bound_us, pod.uid)
