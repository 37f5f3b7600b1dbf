"""InterPodAffinity: required terms as a filter, preferred ones as a score, both ways (plugins/interpodaffinity)."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from skep.arena.objects import PodTerm
from skep.arena.scheduler.classes import PodClass
from skep.arena.scheduler.counters import Totals
from skep.arena.scheduler.matching import pod_term_matches
from skep.arena.scheduler.plugins import EXISTING_ANTI_CODE, POD_AFFINITY_CODE, POD_ANTI_CODE, SCORE_MAX
from skep.arena.scheduler.table import NodeTable

Namespaces = Mapping[str, Mapping[str, str]]


class AffinityPlan:
    """A class's terms, and the terms that pods on nodes hold against or for it, ready to be asked."""

    __slots__ = ("anti", "carried", "existing", "required", "scored", "self_match", "vector")

    def __init__(
        self, cls: PodClass, table: NodeTable, everyone: Iterable[PodClass], namespaces: Namespaces
    ) -> None:
        everyone, template = list(everyone), cls.template
        self.vector, self.carried = table.vector, len(table.carried)

        def matches_all(terms: tuple[PodTerm, ...], other: PodClass) -> bool:
            return all(
                pod_term_matches(term, other.namespace, other.template.labels, namespaces) for term in terms
            )

        def totals(terms: tuple[PodTerm, ...], key: str) -> Totals:
            counter = table.counter(("matches", terms), lambda other: matches_all(terms, other), everyone)
            domain = table.domain(key)
            return Totals(counter, domain.of, domain.size)

        self.required = [
            totals(template.affinity_required, term.topology_key) for term in template.affinity_required
        ]
        self.self_match = matches_all(template.affinity_required, cls)
        self.anti = [totals((term,), term.topology_key) for term in template.anti_required]
        self.scored = [
            *(
                (totals((item.term,), item.term.topology_key), item.weight)
                for item in template.affinity_preferred
            ),
            *(
                (totals((item.term,), item.term.topology_key), -item.weight)
                for item in template.anti_preferred
            ),
        ]
        self.existing = []
        for (kind, term, weight), counter in table.carried.items():
            if pod_term_matches(term, cls.namespace, template.labels, namespaces):
                domain = table.domain(term.topology_key)
                sums = Totals(counter, domain.of, domain.size)
                if kind == "anti":
                    self.existing.append(sums)
                else:
                    self.scored.append((sums, weight))

    @property
    def filters(self) -> bool:
        """True when the filter has anything to say."""
        return bool(self.required or self.anti or self.existing)

    def _is_first(self) -> bool:
        """True when no pod anywhere matches, and the pod matches its own terms: it may be the first."""
        return self.self_match and not any(int(sum(sums.sync())) for sums in self.required)

    def code_at(self, slot: int) -> int:
        """Return the filter's verdict on one node."""
        if self.required:
            if any(sums.of[slot] < 0 for sums in self.required):
                return POD_AFFINITY_CODE
            if not all(sums.sync()[sums.of[slot]] > 0 for sums in self.required) and not self._is_first():
                return POD_AFFINITY_CODE
        for group, code in ((self.anti, POD_ANTI_CODE), (self.existing, EXISTING_ANTI_CODE)):
            for sums in group:
                if sums.of[slot] >= 0 and sums.sync()[sums.of[slot]] > 0:
                    return code
        return 0

    def mark(self, codes: Any) -> None:
        """Write the filter's verdict into `codes` where they are 0 (arrays)."""
        if self.required:
            present = np.ones(len(codes), dtype=bool)
            near = np.ones(len(codes), dtype=bool)
            for sums in self.required:
                present &= sums.of >= 0
                near &= _positive(sums)
            codes[(codes == 0) & ~(present if self._is_first() else present & near)] = POD_AFFINITY_CODE
        for group, code in ((self.anti, POD_ANTI_CODE), (self.existing, EXISTING_ANTI_CODE)):
            for sums in group:
                codes[(codes == 0) & _positive(sums)] = code

    def scores(self, slots: Any) -> Any:
        """Return the normalised scores (0 to 100) of these feasible slots, in their order."""
        if self.vector:
            raw = np.zeros(len(slots), dtype=np.int64)
            for sums, weight in self.scored:
                of, totals = sums.of[slots], sums.sync()
                if len(totals):
                    raw += np.where(of >= 0, totals[of], 0) * weight
            lowest, spread = int(raw.min()), int(raw.max()) - int(raw.min())
            if not spread:
                return np.zeros(len(slots), dtype=np.int64)
            return (SCORE_MAX * ((raw - lowest) / spread)).astype(np.int64)
        values = [0] * len(slots)
        for sums, weight in self.scored:
            totals, of = sums.sync(), sums.of
            for at, slot in enumerate(slots):
                if of[slot] >= 0:
                    values[at] += totals[of[slot]] * weight
        lowest, spread = min(values), max(values) - min(values)
        if not spread:
            return [0] * len(slots)
        return [int(SCORE_MAX * ((value - lowest) / spread)) for value in values]


def _positive(sums: Totals) -> Any:
    totals = sums.sync()
    if not len(totals):
        return np.zeros(len(sums.of), dtype=bool)
    return (sums.of >= 0) & (totals[sums.of] > 0)
