"""Why a pod went where it went, or nowhere: which filter said no on which node, which plugin scored what.

A cycle leaves a small capture of what it saw; the words are made when somebody asks. Captures are bounded by the
cells that they hold, the oldest go first.
"""

from collections import OrderedDict
from typing import Any, Final

import msgspec
import numpy as np

from skep.arena.scheduler.classes import CPU, SCORED_MEMORY
from skep.arena.scheduler.filters import COLUMN_BITS_MAX
from skep.arena.scheduler.placing import Placement
from skep.arena.scheduler.plugins import (
    DETAIL_SHIFT,
    FIXED_REASONS,
    NAMES,
    PLUGIN_MASK,
    SCORE_MAX,
    WEIGHTS,
    Filter,
)
from skep.arena.state import US, PodState

CELLS_MAX: Final = 4_000_000
CELLS_OVERHEAD: Final = 64
NO_NODES: Final = "no nodes available to schedule pods"


class Rejection(msgspec.Struct, frozen=True):
    """The first filter that said no on a node, and all that it said."""

    plugin: str
    reasons: tuple[str, ...]


class Decision(msgspec.Struct, frozen=True):
    """One scheduling attempt, explained. `scores` are weighted by plugin; `total` is their sum.

    `outcome` is "scheduled", "unschedulable" or "nominated" (victims were asked to leave `node`). Nodes that the
    sampling rule left unvisited stand in neither `rejections` nor `scores`.
    """

    pod: str
    at_s: float
    attempt: int
    outcome: str
    node: str | None
    nodes: int
    evaluated: int
    feasible: int
    ties: int
    rejections: dict[str, Rejection]
    scores: dict[str, dict[str, int]]
    message: str
    victims: tuple[str, ...] = ()

    def total(self, node: str) -> int:
        """Return the sum of a node's weighted scores."""
        return sum(self.scores[node].values())


class Capture:
    """What a cycle saw, before it is put into words."""

    __slots__ = (
        "at_us",
        "attempt",
        "balanced",
        "cells",
        "codes",
        "columns",
        "evaluated",
        "feasible",
        "images",
        "least",
        "names",
        "node",
        "nodes",
        "outcome",
        "parts",
        "pod",
        "reasons",
        "slots",
        "start",
        "ties",
        "victims",
    )  # fmt: skip

    def __init__(
        self, pod: PodState, placement: Placement, names: list[str], columns: list[str], at_us: int
    ) -> None:
        verdicts = placement.verdicts
        self.pod, self.attempt, self.at_us = f"{pod.namespace}/{pod.name}", pod.attempts, at_us
        self.names, self.columns = names, columns
        self.start, self.evaluated, self.feasible = placement.start, placement.evaluated, placement.feasible
        self.ties, self.parts, self.slots = placement.ties, placement.parts, placement.slots
        self.reasons, self.images = verdicts.statics.reasons, verdicts.statics.images
        self.nodes = len(names)
        self.outcome, self.node = "unschedulable", None if placement.slot < 0 else names[placement.slot]
        self.victims: tuple[str, ...] = ()
        self._copy(placement)
        self.cells = CELLS_OVERHEAD + len(self.codes) + len(self.least) * (2 + len(self.parts))

    def _copy(self, placement: Placement) -> None:
        """Copy what may change: the verdicts of the evaluated nodes, from `start` on, and the scores of the feasible."""
        verdicts, slots, codes = placement.verdicts, self.slots, placement.codes
        if isinstance(slots, slice):
            self.codes: Any = ()
        elif len(codes) < self.nodes:
            self.codes = codes
        else:
            end = self.start + self.evaluated
            whole = codes[self.start : end]
            if end > self.nodes:
                wrapped = codes[: end - self.nodes]
                whole = whole + wrapped if isinstance(codes, list) else np.concatenate((whole, wrapped))
            self.codes = whole if isinstance(codes, list) else whole.copy()
        if isinstance(verdicts.least, list):
            self.least: Any = [verdicts.least[slot] for slot in slots]
            self.balanced: Any = [verdicts.balanced[slot] for slot in slots]
            return
        at: Any = slots if isinstance(slots, slice) else np.asarray(slots, dtype=np.int64)
        self.least, self.balanced = verdicts.least[at].copy(), verdicts.balanced[at].copy()

    def explained(self) -> Decision:
        """Put the capture into words."""
        rejections = {}
        for at in range(self.evaluated if len(self.codes) else 0):
            slot = (self.start + at) % self.nodes
            code = int(self.codes[at])
            if code and self.names[slot] != self.node:
                rejections[self.names[slot]] = self._rejection(code)
        return Decision(
            pod=self.pod,
            at_s=self.at_us / US,
            attempt=self.attempt,
            outcome=self.outcome,
            node=self.node,
            nodes=self.nodes,
            evaluated=self.evaluated,
            feasible=self.feasible,
            ties=self.ties,
            rejections=rejections,
            scores=self._scores(),
            message=self.message(rejections),
            victims=self.victims,
        )

    def _rejection(self, code: int) -> Rejection:
        return Rejection(
            NAMES[Filter(code & PLUGIN_MASK)], tuple(reasons_of(code, self.reasons, self.columns))
        )

    def _scores(self) -> dict[str, dict[str, int]]:
        slots = range(self.slots.start, self.slots.stop) if isinstance(self.slots, slice) else self.slots
        found = {}
        for at, slot in enumerate(slots):
            scores = {
                "NodeResourcesFit": int(self.least[at]),
                "NodeResourcesBalancedAllocation": int(self.balanced[at]),
                "ImageLocality": 0 if self.images is None else int(self.images[slot]),
                "TaintToleration": SCORE_MAX * WEIGHTS["TaintToleration"],
            }
            scores.update({name: WEIGHTS[name] * int(values[at]) for name, values in self.parts.items()})
            found[self.names[slot]] = scores
        return found

    def message(self, rejections: dict[str, Rejection]) -> str:
        """Return the scheduler's event message."""
        if self.outcome == "scheduled":
            return f"Successfully assigned {self.pod} to {self.node}"
        if not self.nodes:
            return NO_NODES
        counts: dict[str, int] = {}
        for rejection in rejections.values():
            for reason in rejection.reasons:
                counts[reason] = counts.get(reason, 0) + 1
        shown = ", ".join(sorted(f"{count} {reason}" for reason, count in counts.items()))
        return f"0/{self.nodes} nodes are available: {shown}."


def reasons_of(code: int, static_reasons: list[str], columns: list[str]) -> list[str]:
    """Return what a verdict says, in the scheduler's own words."""
    plugin, detail = code & PLUGIN_MASK, code >> DETAIL_SHIFT
    if plugin == Filter.NODE_RESOURCES_FIT:
        found = ["Too many pods"] if detail & 1 else []
        return found + [
            f"Insufficient {columns[column]}"
            for column in range(CPU, len(columns))
            if detail >> min(column - SCORED_MEMORY, COLUMN_BITS_MAX) & 1
        ]
    if plugin == Filter.TAINT_TOLERATION:
        return [static_reasons[detail]]
    return [FIXED_REASONS[code]]


class Captures:
    """The last capture of each pod, bounded by `cells_max` over all."""

    def __init__(self, cells_max: int = CELLS_MAX) -> None:
        self._by_uid: OrderedDict[int, Capture] = OrderedDict()
        self._cells, self._cells_max = 0, cells_max

    def keep(self, uid: int, capture: Capture) -> None:
        """Keep a pod's capture in place of an earlier one."""
        old = self._by_uid.pop(uid, None)
        if old is not None:
            self._cells -= old.cells
        self._by_uid[uid] = capture
        self._cells += capture.cells
        while self._cells > self._cells_max:
            self._cells -= self._by_uid.popitem(last=False)[1].cells

    def get(self, uid: int) -> Capture | None:
        """Return a pod's last capture, or None when it has none (never tried, or long ago)."""
        return self._by_uid.get(uid)

    def forget(self, uid: int) -> None:
        """Drop a pod's capture."""
        old = self._by_uid.pop(uid, None)
        if old is not None:
            self._cells -= old.cells

    def take(self, other: "Captures") -> None:
        """Take up another's captures; they do not change any more."""
        self._by_uid.update(other._by_uid)  # noqa: SLF001 - the same class
        self._cells = other._cells  # noqa: SLF001 - the same class
