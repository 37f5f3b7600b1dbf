"""One scheduling cycle for one pod: which nodes are feasible, which of those is best.

This is `schedulePod` of kube-scheduler: the nominated node first, then filters from a rotating start until enough
feasible nodes are found, then scores, then a seeded draw among the best.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from skep.arena.rng import Rng
from skep.arena.scheduler.classes import PodClass
from skep.arena.scheduler.filters import Verdicts
from skep.arena.scheduler.plugins import nodes_to_find
from skep.arena.scheduler.pod_affinity import AffinityPlan, Namespaces
from skep.arena.scheduler.scores import Parts, normalised_parts, total_scores
from skep.arena.scheduler.spread import SpreadPlan
from skep.arena.scheduler.table import NodeTable
from skep.arena.state import NodeState

VERDICT_BYTES_MAX = 200_000_000
"""What cached verdicts may take; the least recently used shapes are dropped beyond it."""
VERDICT_BYTES_PER_NODE = 24
SHAPES_KEPT_MIN = 64


class Placement:
    """What a cycle came to. `slot` is -1 when no node is feasible; `slots` are those that were scored.

    `codes` are of all slots; of the one slot `start` when only the node that a pod is nominated to was looked at.
    """

    __slots__ = (
        "codes",
        "evaluated",
        "feasible",
        "parts",
        "slot",
        "slots",
        "start",
        "ties",
        "totals",
        "verdicts",
    )

    def __init__(self, verdicts: Verdicts, codes: Any, start: int) -> None:
        self.verdicts, self.codes, self.start = verdicts, codes, start
        self.slot = -1
        self.evaluated = self.feasible = self.ties = 0
        self.slots: Any = ()
        self.totals: Any = ()
        self.parts: Parts = {}


Nominated = Mapping[int, Sequence[tuple[int, PodClass]]]
"""Node id to the pods nominated there, as (pod uid, class)."""


class Plans(NamedTuple):
    """A class's plans, and the version of the nodes that they were made for."""

    version: int
    spread: SpreadPlan | None
    affinity: AffinityPlan | None


class Placer:
    """Finds nodes for pods on one table. `next_start` rotates, so that sampling is fair to all nodes."""

    def __init__(self, table: NodeTable, rng: Rng, classes: Mapping[int, PodClass]) -> None:
        self.table, self._rng, self._classes = table, rng, classes
        self.next_start = 0
        self.namespaces: Namespaces = {}
        self._verdicts: dict[int, Verdicts] = {}
        self._plans: dict[int, Plans] = {}

    def forget(self, class_id: int) -> None:
        """Drop what is cached of a class."""
        self._plans.pop(class_id, None)

    def verdicts(self, cls: PodClass) -> Verdicts:
        """Return the verdicts of the class's shape, up to date."""
        cache = self._verdicts
        found = cache.pop(cls.shape, None)
        if found is None:
            found = Verdicts(cls, self.table)
            kept = max(SHAPES_KEPT_MIN, VERDICT_BYTES_MAX // (VERDICT_BYTES_PER_NODE * (len(self.table) + 1)))
            while len(cache) >= kept:
                del cache[next(iter(cache))]
        cache[cls.shape] = found
        found.sync()
        return found

    def plans(self, cls: PodClass) -> tuple[SpreadPlan | None, AffinityPlan | None]:
        """Return what judges many nodes at once; None where the class has nothing of the kind."""
        table = self.table
        if not cls.spreads and not table.carried:
            return None, None
        found = self._plans.get(cls.id)
        if found is None or found.version != table.node_version:
            spread = SpreadPlan(cls, table, self._classes.values()) if cls.spreads else None
            found = self._plans[cls.id] = Plans(table.node_version, spread, None)
        if table.carried and (found.affinity is None or found.affinity.carried != len(table.carried)):
            affinity = AffinityPlan(cls, table, self._classes.values(), self.namespaces)
            found = self._plans[cls.id] = found._replace(affinity=affinity)
        return found.spread, found.affinity

    def codes(self, cls: PodClass) -> tuple[Verdicts, Any]:
        """Return the verdicts of all filters on every node as the table stands."""
        verdicts = self.verdicts(cls)
        spread, affinity = self.plans(cls)
        return verdicts, self._codes(verdicts, spread, affinity)

    def code_at(self, cls: PodClass, slot: int) -> int:
        """Return the verdict of all filters on one node as the table stands."""
        verdicts = self.verdicts(cls)
        code = int(verdicts.codes[slot])
        if code:
            return code
        spread, affinity = self.plans(cls)
        if spread is not None:
            code = spread.code_at(slot)
        if not code and affinity is not None:
            code = affinity.code_at(slot)
        return code

    def is_local(self, cls: PodClass) -> bool:
        """True when other pods can turn the class away from a node by their requests alone."""
        spread, affinity = self.plans(cls)
        return (
            not cls.template.host_ports
            and (spread is None or not spread.hard)
            and (affinity is None or not affinity.filters)
        )

    def code_with(self, cls: PodClass, node: NodeState, guests: Sequence[PodClass]) -> int:
        """Return the verdict on a node both with `guests` on it and without: the first that fails."""
        if not guests:
            return self.code_at(cls, node.slot)
        for guest in guests:
            self.table.add(node, guest)
        try:
            code = self.code_at(cls, node.slot)
        finally:
            for guest in guests:
                self.table.remove(node, guest, retired=False)
        return code or self.code_at(cls, node.slot)

    def place(self, uid: int, cls: PodClass, own_node: NodeState | None, nominated: Nominated) -> Placement:
        """Find a node for a pod. `own_node` is the node it is nominated to."""
        if own_node is not None:
            guests = _guests(nominated.get(own_node.id, ()), uid, cls.priority)
            if not self.code_with(cls, own_node, guests):
                return self._only(self.verdicts(cls), own_node.slot)
        if self.next_start >= len(self.table):
            self.next_start %= max(len(self.table), 1)
        verdicts = self.verdicts(cls)
        if not verdicts.fitting:
            return self._nowhere(verdicts)
        spread, affinity = self.plans(cls)
        codes = self._codes(verdicts, spread, affinity)
        if nominated:
            codes = self._with_nominated(codes, uid, cls, nominated)
        placement = Placement(verdicts, codes, self.next_start)
        if self.table.vector:
            self._sample_arrays(placement, codes is verdicts.codes)
        else:
            self._sample_lists(placement)
        if placement.feasible:
            self._choose(placement, spread, affinity)
        return placement

    def _only(self, verdicts: Verdicts, slot: int) -> Placement:
        placement = Placement(verdicts, [0], slot)
        placement.slot, placement.slots = slot, [slot]
        placement.evaluated = placement.feasible = placement.ties = 1
        return placement

    def _nowhere(self, verdicts: Verdicts) -> Placement:
        """Return what a cycle comes to that looked at every node in vain; what judges many nodes is not needed."""
        placement = Placement(verdicts, verdicts.codes, self.next_start)
        placement.evaluated = len(self.table)
        return placement

    def _codes(self, verdicts: Verdicts, spread: SpreadPlan | None, affinity: AffinityPlan | None) -> Any:
        judges: list[SpreadPlan | AffinityPlan] = []
        if spread is not None and spread.hard:
            judges.append(spread)
        if affinity is not None and affinity.filters:
            judges.append(affinity)
        codes = verdicts.codes
        if not judges:
            return codes
        codes = codes.copy()
        if self.table.vector:
            for judge in judges:
                judge.mark(codes)
            return codes
        for slot, code in enumerate(codes):
            if not code:
                codes[slot] = next((found for judge in judges if (found := judge.code_at(slot))), 0)
        return codes

    def _with_nominated(self, codes: Any, uid: int, cls: PodClass, nominated: Nominated) -> Any:
        """Judge nodes again that hold a place for pods of this priority or above."""
        codes = codes.copy()
        for node_id, pods in nominated.items():
            guests = _guests(pods, uid, cls.priority)
            if not guests:
                continue
            node = self.table.by_id.get(node_id)
            if node is not None and not codes[node.slot]:
                codes[node.slot] = self.code_with(cls, node, guests)
        return codes

    def _sample_lists(self, placement: Placement) -> None:
        codes, size, start = placement.codes, len(self.table), self.next_start
        wanted = nodes_to_find(size)
        found: list[int] = []
        order: Any = range(size) if not start else [*range(start, size), *range(start)]
        evaluated = size
        for at, slot in enumerate(order):
            if not codes[slot]:
                found.append(slot)
                if len(found) == wanted:
                    evaluated = at + 1
                    break
        placement.slots, placement.feasible, placement.evaluated = found, len(found), evaluated
        if size:
            self.next_start = (start + evaluated) % size

    def _sample_arrays(self, placement: Placement, is_cached: bool) -> None:
        size, start = len(self.table), self.next_start
        wanted = nodes_to_find(size)
        if is_cached and placement.verdicts.fitting == size and start + wanted <= size:
            placement.slots = slice(start, start + wanted)
            placement.feasible = placement.evaluated = wanted
            self.next_start = (start + wanted) % size
            return
        passing = np.flatnonzero(placement.codes == 0)
        cut = int(passing.searchsorted(start))
        found = passing[cut : cut + wanted]
        if len(found) < wanted and cut:
            found = np.concatenate((found, passing[: min(cut, wanted - len(found))]))
        placement.slots, placement.feasible = found, len(found)
        placement.evaluated = size if len(found) < wanted else (int(found[-1]) - start) % size + 1
        self.next_start = (start + placement.evaluated) % size

    def _choose(self, placement: Placement, spread: SpreadPlan | None, affinity: AffinityPlan | None) -> None:
        slots, verdicts = placement.slots, placement.verdicts
        if placement.feasible == 1:
            placement.slot, placement.ties = int(slots[0] if not isinstance(slots, slice) else slots.start), 1
            return
        statics = verdicts.statics
        plain = statics.taints is None and statics.preferred is None and affinity is None and spread is None
        if not plain:
            if isinstance(slots, slice):
                slots = placement.slots = np.arange(slots.start, slots.stop)
            placement.parts = normalised_parts(verdicts, spread, affinity, slots)
        placement.totals = totals = total_scores(verdicts, placement.parts, slots)
        if isinstance(totals, list):
            best = max(totals)
            ties = [at for at, total in enumerate(totals) if total == best]
        else:
            ties = (totals == totals.max()).nonzero()[0]
        placement.ties = len(ties)
        at = int(ties[self._rng.below(len(ties))] if len(ties) > 1 else ties[0])
        placement.slot = slots.start + at if isinstance(slots, slice) else int(slots[at])


def _guests(pods: Sequence[tuple[int, PodClass]], uid: int, priority: int) -> list[PodClass]:
    return [cls for other, cls in pods if other != uid and cls.priority >= priority]
