"""The nodes as the scheduler sees them: in its order, with what their pods use, and who must be told of a change.

Small tables are kept in lists, because numpy costs a microsecond a touch; large ones in arrays. Both hold the same
numbers, and the tests run every decision on both.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, Protocol

import numpy as np

from skep.arena.scheduler.classes import CPU, MEMORY, SCORED_CPU, SCORED_MEMORY, Carried, Columns, PodClass
from skep.arena.scheduler.counters import TermCounter
from skep.arena.state import NodeState

VECTOR_FROM: Final = 48
"""Nodes from which on arrays are faster than lists (measured: benchmarks/arena_cluster.py)."""
JOURNAL_MAX: Final = 65_536
REGION, ZONE = "topology.kubernetes.io/region", "topology.kubernetes.io/zone"


class NodeVerdicts(Protocol):
    """What the table tells of a change to a node itself (`statics.py`)."""

    def update(self, slot: int) -> None:
        """Read one node anew."""
        ...


class Domain:
    """One topology key: the domain of each slot (-1 where the label is missing) and the domains' names."""

    __slots__ = ("names", "of", "size")

    def __init__(self, of: Any, names: list[str]) -> None:
        self.of, self.names, self.size = of, names, len(names)


class NodeTable:
    """Nodes in scheduling order.

    `generation` changes whenever slots, labels or columns do, `node_version` whenever a node does.
    """

    def __init__(self, columns: Columns, *, vector_from: int = VECTOR_FROM) -> None:
        self.columns = columns
        self.vector_from = vector_from
        self.vector = False
        self.stale = True
        self.generation = 0
        self.node_version = 0
        self.nodes: list[NodeState] = []
        self.by_id: dict[int, NodeState] = {}
        self.names: list[str] = []
        self.caps: list[list[int]] = []
        self.rows: list[list[int]] = []
        self.journal: list[int] = []
        self.epoch = 0
        self.counters: dict[Any, TermCounter] = {}
        self.carried: dict[Carried, TermCounter] = {}
        self.statics: dict[Any, NodeVerdicts] = {}
        self._domains: dict[str, Domain] = {}
        self._arrays: tuple[Any, Any, int, int] | None = None

    def __len__(self) -> int:
        return len(self.nodes)

    def invalidate(self) -> None:
        """Say that nodes came, went or changed their labels; the next `rebuild` takes it up."""
        self.stale = True

    def rebuild(self, nodes: Iterable[NodeState], classes: Iterable[PodClass]) -> None:
        """Take up the nodes anew: order, rows, and the counters of what pods carry."""
        self.nodes = _zone_order(nodes)
        self.by_id = {node.id: node for node in self.nodes}
        self.names = [node.spec.name for node in self.nodes]
        self.vector = len(self.nodes) >= self.vector_from
        width = len(self.columns)
        self.caps = []
        for slot, node in enumerate(self.nodes):
            node.slot = slot
            self.caps.append(self._capacity(node))
            if len(node.row) < width:
                node.row.extend([0] * (width - len(node.row)))
        self.rows = [node.row for node in self.nodes]
        self.generation += 1
        self.node_version += 1
        self.journal.clear()
        self.epoch += 1
        self.counters.clear()
        self.carried.clear()
        self.statics.clear()
        self._domains.clear()
        self._arrays = None
        self.stale = False
        everyone = list(classes)
        for cls in everyone:
            cls.counters.clear()
            cls.live_counters.clear()
        for cls in everyone:
            self._carry(cls, everyone)

    def _capacity(self, node: NodeState) -> list[int]:
        given = node.spec.allocatable
        row = [given.get(name, 0) for name in self.columns.names]
        row[SCORED_CPU], row[SCORED_MEMORY] = row[CPU], row[MEMORY]
        return row

    def admit_class(self, cls: PodClass, everyone: Iterable[PodClass]) -> None:
        """Take up a new class: its columns, its terms, and which counters count it."""
        if self.stale:
            return
        if self.rows and len(self.rows[0]) < len(self.columns):
            self.stale = True
            return
        for (live, _), counter in self.counters.items():
            if counter.matches(cls):
                (cls.live_counters if live else cls.counters).append(counter)
        self._carry(cls, everyone)

    def _carry(self, cls: PodClass, everyone: Iterable[PodClass]) -> None:
        for carried in cls.carried:
            if carried not in self.carried:
                self.carried[carried] = self.counter(
                    ("carries", carried), partial(_carries, carried), everyone
                )

    def counter(
        self,
        key: Any,
        matches: Callable[[PodClass], bool],
        everyone: Iterable[PodClass],
        *,
        live: bool = False,
    ) -> TermCounter:
        """Return the counter of `key`, made on first use by counting the pods that are there."""
        found = self.counters.get((live, key))
        if found is not None:
            return found
        matched = {cls.id: cls for cls in everyone if matches(cls)}
        counts = [
            sum(number for id_, number in (node.live if live else node.all).items() if id_ in matched)
            for node in self.nodes
        ]
        found = TermCounter(np.array(counts, dtype=np.int64) if self.vector else counts, matches)
        self.counters[live, key] = found
        for cls in matched.values():
            (cls.live_counters if live else cls.counters).append(found)
        return found

    def domain(self, key: str) -> Domain:
        """Return the domains of a topology key."""
        found = self._domains.get(key)
        if found is None:
            numbers: dict[str, int] = {}
            of = [
                numbers.setdefault(value, len(numbers))
                if (value := node.spec.labels.get(key)) is not None
                else -1
                for node in self.nodes
            ]
            found = Domain(np.array(of, dtype=np.int64) if self.vector else of, list(numbers))
            self._domains[key] = found
        return found

    def add(self, node: NodeState, cls: PodClass) -> None:
        """A pod of this class now stands on the node."""
        row = node.row
        if len(row) < len(self.columns):
            row.extend([0] * (len(self.columns) - len(row)))
        node.stamp += 1
        for column, amount in cls.deltas:
            row[column] += amount
        node.all[cls.id] = node.all.get(cls.id, 0) + 1
        node.live[cls.id] = node.live.get(cls.id, 0) + 1
        for port in cls.template.host_ports:
            node.ports[port] = node.ports.get(port, 0) + 1
        if not self.stale:
            self._tell(node.slot, cls.counters, 1)
            self._tell(node.slot, cls.live_counters, 1)
            self._note(node.slot)

    def retire(self, node: NodeState, cls: PodClass) -> None:
        """A pod of this class on the node is being deleted: topology spread counts it no longer."""
        node.stamp += 1
        _decrement(node.live, cls.id)
        if not self.stale:
            self._tell(node.slot, cls.live_counters, -1)

    def remove(self, node: NodeState, cls: PodClass, *, retired: bool) -> None:
        """A pod of this class left the node; `retired` when it was being deleted before."""
        if not retired:
            self.retire(node, cls)
        node.stamp += 1
        row = node.row
        for column, amount in cls.deltas:
            row[column] -= amount
        _decrement(node.all, cls.id)
        for port in cls.template.host_ports:
            _decrement(node.ports, port)
        if not self.stale:
            self._tell(node.slot, cls.counters, -1)
            self._note(node.slot)

    def node_changed(self, node: NodeState) -> None:
        """A node's taints, cordon or images changed: what depends on them is read anew."""
        if not self.stale:
            self.node_version += 1
            for statics in self.statics.values():
                statics.update(node.slot)
            self._note(~node.slot)

    def _note(self, entry: int) -> None:
        if len(self.journal) >= JOURNAL_MAX:
            self.journal.clear()
            self.epoch += 1
        self.journal.append(entry)

    @staticmethod
    def _tell(slot: int, counters: list[TermCounter], delta: int) -> None:
        for counter in counters:
            counter.add(slot, delta)

    def arrays(self) -> tuple[Any, Any]:
        """Return capacities and rows as arrays (slots x columns), brought up to date."""
        if self._arrays is None:
            caps = np.array(self.caps, dtype=np.int64).reshape(len(self.nodes), -1)
            rows = np.array(self.rows, dtype=np.int64).reshape(len(self.nodes), -1)
        else:
            caps, rows, epoch, at = self._arrays
            if epoch != self.epoch:
                rows = np.array(self.rows, dtype=np.int64)
            else:
                for entry in dict.fromkeys(self.journal[at:]):
                    slot = entry if entry >= 0 else ~entry
                    rows[slot] = self.rows[slot]
        self._arrays = (caps, rows, self.epoch, len(self.journal))
        return caps, rows


def _carries(carried: Carried, cls: PodClass) -> bool:
    return carried in cls.carried


def _decrement(counts: dict[Any, int], key: Any) -> None:
    left = counts[key] - 1
    if left:
        counts[key] = left
    else:
        del counts[key]


def _zone_order(nodes: Iterable[NodeState]) -> list[NodeState]:
    """Return the nodes zone by zone in turn (`nodeTree.list`), so that sampling reaches every zone."""
    zones: dict[tuple[str, str], list[NodeState]] = {}
    for node in nodes:
        labels = node.spec.labels
        zones.setdefault((labels.get(REGION, ""), labels.get(ZONE, "")), []).append(node)
    if len(zones) == 1:
        return next(iter(zones.values()))
    longest = max(map(len, zones.values()), default=0)
    return [zone[at] for at in range(longest) for zone in zones.values() if at < len(zone)]
