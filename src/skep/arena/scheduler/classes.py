"""Pod classes: pods that scheduling cannot tell apart, so that verdicts are computed once for all of them."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from skep.arena.objects import (
    PodTemplate,
    PodTerm,
    Requirement,
    Selector,
    SpreadConstraint,
    WeightedPodTerm,
)
from skep.arena.scheduler.counters import TermCounter

PODS, SCORED_CPU, SCORED_MEMORY, CPU, MEMORY = range(5)
"""Columns of a node's row; `SCORED_*` count what scoring assumes of pods without requests. Others follow."""
FIXED_COLUMNS: Final = ("pods", "scored-cpu", "scored-memory", "cpu", "memory")

HOSTNAME: Final = "kubernetes.io/hostname"
ZONE: Final = "topology.kubernetes.io/zone"
DEFAULT_SPREAD: Final = ((3, HOSTNAME), (5, ZONE))
"""The scheduler's own soft constraints for pods of services and workloads (maxSkew, topology key)."""


class ClassKey(msgspec.Struct, frozen=True, array_like=True):
    """What makes pods alike: also what a snapshot holds of a class."""

    namespace: str
    template: PodTemplate
    priority: int
    default_selector: Selector | None


class PodClass:
    """A class, with what the scheduler derives from its template once."""

    __slots__ = (
        "best_effort",
        "carried",
        "counters",
        "cpu",
        "deltas",
        "id",
        "key",
        "live_counters",
        "memory",
        "namespace",
        "priority",
        "refs",
        "requests",
        "scored_cpu",
        "scored_memory",
        "shape",
        "spread_is_default",
        "spreads",
        "template",
    )

    def __init__(self, number: int, key: ClassKey, columns: "Columns") -> None:
        template = _resolved(key.template)
        self.id, self.key, self.refs = number, key, 0
        self.namespace, self.template, self.priority = key.namespace, template, key.priority
        self.cpu, self.memory = template.requests.get("cpu", 0), template.requests.get("memory", 0)
        self.scored_cpu, self.scored_memory = template.nonzero_cpu, template.nonzero_memory
        self.best_effort = not self.cpu and not self.memory
        self.requests = tuple((columns.of(name), value) for name, value in template.requests.items())
        self.deltas = (
            (PODS, 1),
            (SCORED_CPU, self.scored_cpu),
            (SCORED_MEMORY, self.scored_memory),
            *self.requests,
        )
        self.spreads, self.spread_is_default = _spreads(template, key.default_selector)
        self.carried = _carried(template)
        self.shape = columns.shape(
            (self.requests, self.scored_cpu, self.scored_memory, template.host_ports, static_key(template))
        )
        self.counters: list[TermCounter] = []
        self.live_counters: list[TermCounter] = []

    def clone(self) -> "PodClass":
        """Return a copy for another table: the same class, counted by nobody yet."""
        copied = PodClass.__new__(PodClass)
        for name in PodClass.__slots__:
            setattr(copied, name, getattr(self, name))
        copied.counters, copied.live_counters = [], []
        return copied


def _spreads(template: PodTemplate, default: Selector | None) -> tuple[tuple[SpreadConstraint, ...], bool]:
    if template.spread:
        return template.spread, False
    if default is None or not default.requirements:
        return (), False
    return tuple(
        SpreadConstraint(skew, name, hard=False, selector=default) for skew, name in DEFAULT_SPREAD
    ), True


def _narrowed(
    selector: Selector | None, match: Sequence[str], mismatch: Sequence[str], labels: dict[str, str]
) -> Selector | None:
    if selector is None:
        return None
    extra = (
        *(Requirement(key, "In", (labels[key],)) for key in match if key in labels),
        *(Requirement(key, "NotIn", (labels[key],)) for key in mismatch if key in labels),
    )
    return Selector(selector.requirements + extra)


def _narrow_term(term: PodTerm, labels: dict[str, str]) -> PodTerm:
    selector = _narrowed(term.selector, term.match_keys, term.mismatch_keys, labels)
    return msgspec.structs.replace(term, selector=selector, match_keys=(), mismatch_keys=())


def _resolved(template: PodTemplate) -> PodTemplate:
    """Return the template with `matchLabelKeys` and `mismatchLabelKeys` turned into the pod's own label values."""
    if not (template.spread or template.affinity_required or template.anti_required) and not (
        template.affinity_preferred or template.anti_preferred
    ):
        return template
    terms = (
        *template.affinity_required,
        *template.anti_required,
        *(item.term for item in (*template.affinity_preferred, *template.anti_preferred)),
    )
    if not any(term.match_keys or term.mismatch_keys for term in terms) and not any(
        constraint.match_keys for constraint in template.spread
    ):
        return template
    labels = template.labels

    def weighted(items: tuple[WeightedPodTerm, ...]) -> tuple[WeightedPodTerm, ...]:
        return tuple(WeightedPodTerm(item.weight, _narrow_term(item.term, labels)) for item in items)

    return msgspec.structs.replace(
        template,
        affinity_required=tuple(_narrow_term(term, labels) for term in template.affinity_required),
        anti_required=tuple(_narrow_term(term, labels) for term in template.anti_required),
        affinity_preferred=weighted(template.affinity_preferred),
        anti_preferred=weighted(template.anti_preferred),
        spread=tuple(
            msgspec.structs.replace(
                item, selector=_narrowed(item.selector, item.match_keys, (), labels), match_keys=()
            )
            for item in template.spread
        ),
    )


Carried = tuple[str, PodTerm, int]
"""A term that a pod brings to its node: ("anti" required, or "score" with a signed weight)."""
HARD_AFFINITY_WEIGHT: Final = 1


def _carried(template: PodTemplate) -> tuple[Carried, ...]:
    if not (template.affinity_required or template.anti_required) and not (
        template.affinity_preferred or template.anti_preferred
    ):
        return ()
    weights: dict[PodTerm, int] = {}
    for term in template.affinity_required:
        weights[term] = weights.get(term, 0) + HARD_AFFINITY_WEIGHT
    for item in template.affinity_preferred:
        weights[item.term] = weights.get(item.term, 0) + item.weight
    for item in template.anti_preferred:
        weights[item.term] = weights.get(item.term, 0) - item.weight
    anti = dict.fromkeys(template.anti_required)
    return (
        *(("anti", term, 0) for term in anti),
        *(("score", term, weight) for term, weight in weights.items()),
    )


StaticKey = tuple[Any, ...]


def static_key(template: PodTemplate) -> StaticKey:
    """Return what verdicts depend on that depend on nodes alone (`statics.py`)."""
    return (
        template.node_name,
        template.node_selector,
        template.node_required,
        template.node_preferred,
        template.tolerations,
        template.images,
    )


SHAPES_MAX: Final = 65_536


class Columns:
    """Resource names to columns of a node's row; a new name gets the next column.

    It numbers shapes too: what makes classes alike for everything that looks at one node at a time.
    """

    __slots__ = ("_next_shape", "_of", "_shapes", "names")

    def __init__(self, names: Sequence[str] = FIXED_COLUMNS) -> None:
        self.names = list(names)
        self._of = {name: at for at, name in enumerate(self.names)}
        self._shapes: dict[Any, int] = {}
        self._next_shape = 0

    def clone(self) -> "Columns":
        """Return a copy in which columns and shapes keep their numbers."""
        copied = Columns(self.names)
        copied._shapes, copied._next_shape = dict(self._shapes), self._next_shape
        return copied

    def shape(self, key: Any) -> int:
        """Return the number of a shape; after `SHAPES_MAX` of them numbers are given anew, never twice."""
        found = self._shapes.get(key)
        if found is None:
            if len(self._shapes) >= SHAPES_MAX:
                self._shapes.clear()
            found = self._shapes[key] = self._next_shape
            self._next_shape += 1
        return found

    def of(self, name: str) -> int:
        """Return the column of a resource."""
        at = self._of.get(name)
        if at is None:
            at = self._of[name] = len(self.names)
            self.names.append(name)
        return at

    def __len__(self) -> int:
        return len(self.names)
