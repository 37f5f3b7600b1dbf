"""A shape's verdict and resource scores on every node, kept as the table changes.

What is cached here depends on one node at a time (static filters, ports, resources; NodeResourcesFit and
BalancedAllocation scores), so a placement costs the recomputation of one node. What depends on many nodes at once is
in `spread.py` and `pod_affinity.py`.
"""

from typing import Any

import numpy as np

from skep.arena.scheduler.classes import (
    CPU,
    MEMORY,
    PODS,
    SCORED_CPU,
    SCORED_MEMORY,
    PodClass,
    static_key,
)
from skep.arena.scheduler.plugins import (
    DETAIL_SHIFT,
    FIT_CODE,
    PLUGIN_MASK,
    PORTS_CODE,
    SCORE_MAX,
    UNRESOLVABLE,
)
from skep.arena.scheduler.statics import Statics
from skep.arena.scheduler.table import NodeTable

BULK_FROM = 12
"""Changed nodes from which on they are recomputed as arrays."""
COLUMN_BITS_MAX = 40


def column_bit(column: int) -> int:
    """Return the bit that says "insufficient" of a column in a Fit verdict's detail."""
    return 1 << min(max(column - SCORED_MEMORY, 0), COLUMN_BITS_MAX)


def fit_code(cls: PodClass, row: list[int], cap: list[int]) -> int:
    """Return the NodeResourcesFit verdict of one more pod on a node whose pods use `row`."""
    mask = 0 if row[PODS] < cap[PODS] else 1
    unresolvable = 0
    for column, amount in cls.requests:
        if amount > cap[column] - row[column]:
            mask |= column_bit(column)
            if amount > cap[column]:
                unresolvable = UNRESOLVABLE
    return FIT_CODE | unresolvable | mask << DETAIL_SHIFT if mask else 0


def ports_conflict(cls: PodClass, ports: dict[tuple[str, str, int], int]) -> bool:
    """True when a host port that the class wants is taken; an address of 0.0.0.0 is every address."""
    for address, protocol, number in cls.template.host_ports:
        for other_address, other_protocol, other_number in ports:
            if (protocol, number) == (other_protocol, other_number) and (
                address == other_address or "0.0.0.0" in (address, other_address)  # noqa: S104 - the API's word
            ):
                return True
    return False


def least_allocated(cls: PodClass, row: list[int], cap: list[int]) -> int:
    """Return NodeResourcesFit's score (LeastAllocated, cpu and memory alike), 0 to 100."""
    total = weights = 0
    capacity = cap[SCORED_CPU]
    if capacity:
        weights = 1
        used = row[SCORED_CPU] + cls.scored_cpu
        if used <= capacity:
            total = (capacity - used) * SCORE_MAX // capacity
    capacity = cap[SCORED_MEMORY]
    if capacity:
        weights += 1
        used = row[SCORED_MEMORY] + cls.scored_memory
        if used <= capacity:
            total += (capacity - used) * SCORE_MAX // capacity
    return total // weights if weights else 0


def balanced_allocation(cls: PodClass, row: list[int], cap: list[int]) -> int:
    """Return NodeResourcesBalancedAllocation's score, 0 to 100; a best-effort pod has none."""
    if cls.best_effort:
        return 0
    if not cap[CPU] or not cap[MEMORY]:
        return SCORE_MAX
    cpu, memory = (row[CPU] + cls.cpu) / cap[CPU], (row[MEMORY] + cls.memory) / cap[MEMORY]
    cpu, memory = min(cpu, 1.0), min(memory, 1.0)
    return int((1 - abs((cpu - memory) / 2)) * SCORE_MAX)


def plugins_of(codes: Any) -> int:
    """Return the mask of the filters that some verdicts name."""
    seen = set(codes) if isinstance(codes, list) else set(codes.tolist())
    return sum(1 << plugin for plugin in {code & PLUGIN_MASK for code in seen} if plugin)


class Verdicts:
    """Codes and scores per slot, for every class of one shape.

    `base` is the sum of the scores that need no normalisation.
    """

    __slots__ = (
        "_at",
        "_epoch",
        "_generation",
        "_had_images",
        "_rejected",
        "_table",
        "balanced",
        "base",
        "cls",
        "codes",
        "fitting",
        "least",
        "statics",
        "version",
    )

    def __init__(self, cls: PodClass, table: NodeTable) -> None:
        self.cls, self._table = cls, table
        self._generation = -1
        self._had_images = False
        self._rejected: tuple[int, int] = (-1, 0)
        self._epoch = self._at = 0
        self.version = 0
        self.fitting = 0
        self.codes: Any = []
        self.least: Any = []
        self.balanced: Any = []
        self.base: Any = []

    def sync(self) -> None:
        """Take up what changed in the table since the last time."""
        table = self._table
        if self._generation != table.generation:
            self._start()
        elif self._epoch != table.epoch:
            self._fill()
        elif self._at != len(table.journal):
            self._follow(table.journal)

    def rejected_by(self) -> int:
        """Return the mask of the filters that turn any node away."""
        if self._rejected[0] != self.version:
            self._rejected = (self.version, plugins_of(self.codes))
        return self._rejected[1]

    def _start(self) -> None:
        table, key = self._table, static_key(self.cls.template)
        found = table.statics.get(key)
        if found is None:
            found = table.statics[key] = Statics(table, self.cls.template)
        self.statics: Statics = found  # type: ignore[assignment]
        self._generation = table.generation
        self._fill()

    def _follow(self, journal: list[int]) -> None:
        table, start = self._table, self._at
        self.version += 1
        self._at = len(journal)
        if self._at - start == 1 and journal[start] >= 0:
            self._refresh(journal[start])
            return
        slots = dict.fromkeys(entry if entry >= 0 else ~entry for entry in journal[start:])
        has_images = self.statics.images is not None or self._had_images
        if has_images and any(entry < 0 for entry in journal[start:]):
            self._fill()
            return
        if table.vector and len(slots) > BULK_FROM:
            self._fill_arrays(np.fromiter(slots, dtype=np.int64, count=len(slots)))
        else:
            for slot in slots:
                self._refresh(slot)

    def _fill(self) -> None:
        table = self._table
        self._epoch, self._at = table.epoch, len(table.journal)
        self.version += 1
        self._had_images = self.statics.images is not None
        size = len(table)
        if table.vector:
            self.codes = np.empty(size, dtype=np.int64)
            self.least, self.balanced = np.empty(size, dtype=np.int16), np.empty(size, dtype=np.int16)
            self.base = np.empty(size, dtype=np.int32)
            self.fitting = 0
            self._fill_arrays(None)
            return
        self.codes = [1] * size
        self.least, self.balanced, self.base = [0] * size, [0] * size, [0] * size
        self.fitting = 0
        for slot in range(size):
            self._refresh(slot)

    def _refresh(self, slot: int) -> None:
        cls, table = self.cls, self._table
        row, cap = table.rows[slot], table.caps[slot]
        code = int(self.statics.codes[slot])
        if not code:
            if cls.template.host_ports and ports_conflict(cls, table.nodes[slot].ports):
                code = PORTS_CODE
            else:
                code = fit_code(cls, row, cap)
        self.fitting += (not code) - (not self.codes[slot])
        self.codes[slot] = code
        self.least[slot] = least = least_allocated(cls, row, cap)
        self.balanced[slot] = balanced = balanced_allocation(cls, row, cap)
        images = self.statics.images
        self.base[slot] = least + balanced + (int(images[slot]) if images is not None else 0)

    def _fill_arrays(self, slots: Any) -> None:
        """Recompute `slots` (an index array; None is all of them) with numpy."""
        cls, table = self.cls, self._table
        caps, rows = table.arrays()
        at: Any = slice(None) if slots is None else slots
        caps, rows = caps[at], rows[at]
        codes = self.statics.codes[at].copy()
        if cls.template.host_ports:
            _mark_ports(cls, table, codes, range(len(table)) if slots is None else slots)
        fit = _fit_codes(cls, rows, caps)
        codes = np.where(codes == 0, fit, codes)
        before = 0 if slots is None else int(np.count_nonzero(self.codes[at] == 0))
        self.fitting += int(np.count_nonzero(codes == 0)) - before
        self.codes[at] = codes
        least, balanced = _least(cls, rows, caps), _balanced(cls, rows, caps)
        self.least[at], self.balanced[at] = least, balanced
        images = self.statics.images
        self.base[at] = least + balanced + (0 if images is None else images[at])


def _mark_ports(cls: PodClass, table: NodeTable, codes: Any, slots: Any) -> None:
    for at, slot in enumerate(slots):
        if not codes[at] and ports_conflict(cls, table.nodes[slot].ports):
            codes[at] = PORTS_CODE


def _fit_codes(cls: PodClass, rows: Any, caps: Any) -> Any:
    mask = (rows[:, PODS] >= caps[:, PODS]).astype(np.int64)
    unresolvable = np.zeros(len(rows), dtype=np.int64)
    for column, amount in cls.requests:
        short = amount > caps[:, column] - rows[:, column]
        mask |= np.where(short, column_bit(column), 0)
        unresolvable |= np.where(short & (amount > caps[:, column]), UNRESOLVABLE, 0)
    return np.where(mask != 0, FIT_CODE | unresolvable | mask << DETAIL_SHIFT, 0)


def _least(cls: PodClass, rows: Any, caps: Any) -> Any:
    total = np.zeros(len(rows), dtype=np.int64)
    weights = np.zeros(len(rows), dtype=np.int64)
    for column, scored in ((SCORED_CPU, cls.scored_cpu), (SCORED_MEMORY, cls.scored_memory)):
        capacity = caps[:, column]
        left = capacity - rows[:, column] - scored
        total += np.where(left >= 0, left * SCORE_MAX // np.maximum(capacity, 1), 0)
        weights += capacity != 0
    return total // np.maximum(weights, 1)


def _balanced(cls: PodClass, rows: Any, caps: Any) -> Any:
    if cls.best_effort:
        return np.zeros(len(rows), dtype=np.int64)
    cpu_cap, memory_cap = caps[:, CPU], caps[:, MEMORY]
    cpu = np.minimum((rows[:, CPU] + cls.cpu) / np.maximum(cpu_cap, 1), 1.0)
    memory = np.minimum((rows[:, MEMORY] + cls.memory) / np.maximum(memory_cap, 1), 1.0)
    scores = ((1 - np.abs((cpu - memory) / 2)) * SCORE_MAX).astype(np.int64)
    return np.where((cpu_cap == 0) | (memory_cap == 0), SCORE_MAX, scores)
