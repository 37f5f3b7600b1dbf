"""PodTopologySpread: hard constraints as a filter, soft ones as a score (plugins/podtopologyspread)."""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from skep.arena.objects import Selector, SpreadConstraint
from skep.arena.scheduler.classes import HOSTNAME, PodClass
from skep.arena.scheduler.counters import Totals
from skep.arena.scheduler.matching import node_matches, selects, untolerated
from skep.arena.scheduler.plugins import SCORE_MAX, SPREAD_CODE, SPREAD_MISSING_CODE
from skep.arena.scheduler.table import NodeTable


class Skew:
    """One constraint on one table."""

    __slots__ = ("constraint", "is_hostname", "self_match", "sums")

    def __init__(self, constraint: SpreadConstraint, cls: PodClass, sums: Totals) -> None:
        self.constraint, self.sums = constraint, sums
        self.self_match = int(selects(constraint.selector, cls.template.labels))
        self.is_hostname = constraint.topology_key == HOSTNAME


class SpreadPlan:
    """A class's constraints, ready to be asked."""

    __slots__ = ("hard", "ignored", "requires_all", "soft", "vector")

    def __init__(self, cls: PodClass, table: NodeTable, everyone: Iterable[PodClass]) -> None:
        everyone = list(everyone)
        self.vector = table.vector
        self.requires_all = not cls.spread_is_default
        hard = [constraint for constraint in cls.spreads if constraint.hard]
        soft = [constraint for constraint in cls.spreads if not constraint.hard]
        self.hard = self._skews(hard, cls, table, everyone, requires_all=True)
        self.soft = self._skews(soft, cls, table, everyone, requires_all=self.requires_all)
        self.ignored: Any = self._ignored(table) if self.soft and self.requires_all else None

    def _skews(
        self,
        constraints: Sequence[SpreadConstraint],
        cls: PodClass,
        table: NodeTable,
        everyone: list[PodClass],
        *,
        requires_all: bool,
    ) -> list[Skew]:
        keys = [constraint.topology_key for constraint in constraints]
        found = []
        for constraint in constraints:
            selector = constraint.selector
            counter = table.counter(
                (cls.namespace, selector), partial(_selects, cls.namespace, selector), everyone, live=True
            )
            domain = table.domain(constraint.topology_key)
            counted = _counted(constraint, cls, table, keys if requires_all else [])
            found.append(Skew(constraint, cls, Totals(counter, domain.of, domain.size, counted)))
        return found

    def _ignored(self, table: NodeTable) -> Any:
        """Return which slots lack a key of a soft constraint; None when none does."""
        lacking = [
            any(skew.constraint.topology_key not in node.spec.labels for skew in self.soft)
            for node in table.nodes
        ]
        if not any(lacking):
            return None
        return np.array(lacking) if self.vector else lacking

    def code_at(self, slot: int) -> int:
        """Return the filter's verdict on one node."""
        for skew in self.hard:
            totals = skew.sums.sync()
            domain = skew.sums.of[slot]
            if domain < 0:
                return SPREAD_MISSING_CODE
            lowest = skew.sums.lowest(skew.constraint.min_domains)
            if totals[domain] + skew.self_match - lowest > skew.constraint.max_skew:
                return SPREAD_CODE
        return 0

    def mark(self, codes: Any) -> None:
        """Write the filter's verdict into `codes` where they are 0 (arrays)."""
        for skew in self.hard:
            totals, of = skew.sums.sync(), skew.sums.of
            if not len(totals):
                codes[codes == 0] = SPREAD_MISSING_CODE
                return
            lowest = skew.sums.lowest(skew.constraint.min_domains)
            skewed = totals[of] + skew.self_match - lowest > skew.constraint.max_skew
            codes[(codes == 0) & (of < 0)] = SPREAD_MISSING_CODE
            codes[(codes == 0) & skewed] = SPREAD_CODE

    def scores(self, slots: Any) -> Any:
        """Return the normalised scores (0 to 100) of these feasible slots, in their order."""
        return self._score_arrays(slots) if self.vector else self._score_lists(slots)

    def _score_lists(self, slots: list[int]) -> list[int]:
        ignored = self.ignored
        scored = slots if ignored is None else [slot for slot in slots if not ignored[slot]]
        raw = [0.0] * len(scored)
        for skew in self.soft:
            totals, of, counts = skew.sums.sync(), skew.sums.of, skew.sums.counter.counts
            extra = skew.constraint.max_skew - 1
            size = len(scored) if skew.is_hostname else len({of[slot] for slot in scored})
            weight = math.log(size + 2)
            for at, slot in enumerate(scored):
                domain = of[slot]
                if domain >= 0:
                    raw[at] += (counts[slot] if skew.is_hostname else totals[domain]) * weight + extra
        whole = [math.floor(value + 0.5) for value in raw]
        highest, lowest = max(whole, default=0), min(whole, default=0)
        bound = highest + lowest
        normal = [SCORE_MAX * (bound - value) // highest if highest else SCORE_MAX for value in whole]
        if ignored is None:
            return normal
        by_slot = dict(zip(scored, normal, strict=True))
        return [by_slot.get(slot, 0) for slot in slots]

    def _score_arrays(self, slots: Any) -> Any:
        kept = None if self.ignored is None else ~self.ignored[slots]
        scored = slots if kept is None else slots[kept]
        raw = np.zeros(len(scored))
        for skew in self.soft:
            totals, of = skew.sums.sync(), skew.sums.of[scored]
            if skew.is_hostname:
                size, counts = len(scored), skew.sums.counter.counts[scored]
            else:
                seen = np.bincount(of + 1, minlength=1)
                size = int(np.count_nonzero(seen))
                counts = totals[of] if len(totals) else of
            part = counts * math.log(size + 2) + (skew.constraint.max_skew - 1)
            raw += part if not len(of) or of.min() >= 0 else np.where(of >= 0, part, 0.0)
        whole = np.floor(raw + 0.5).astype(np.int64)
        highest, lowest = (int(whole.max()), int(whole.min())) if len(whole) else (0, 0)
        normal = (
            SCORE_MAX * (highest + lowest - whole) // highest if highest else np.full(len(whole), SCORE_MAX)
        )
        if kept is None:
            return normal
        scores = np.zeros(len(slots), dtype=np.int64)
        scores[kept] = normal
        return scores


def _selects(namespace: str, selector: Selector | None, cls: PodClass) -> bool:
    return cls.namespace == namespace and selects(selector, cls.template.labels)


def _counted(constraint: SpreadConstraint, cls: PodClass, table: NodeTable, keys: Sequence[str]) -> Any:
    """Return which slots take part in the counts (inclusion policies, all keys present); None is all."""
    template = cls.template
    asks = template.node_selector or template.node_required is not None
    if not keys and not constraint.honor_taints and not (asks and constraint.honor_affinity):
        return None
    by_affinity = constraint.honor_affinity and bool(
        template.node_selector or template.node_required is not None
    )
    kept = [
        all(key in node.spec.labels for key in keys)
        and (not by_affinity or node_matches(template, node.spec.name, node.spec.labels))
        and (not constraint.honor_taints or untolerated(template.tolerations, node.taints) is None)
        for node in table.nodes
    ]
    if all(kept):
        return None
    return np.array(kept) if table.vector else kept
