"""The classes of pods that the scheduler cannot tell apart: made on first sight, counted, let go when nobody is left."""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from skep.arena.objects import (
    PodTemplate,
    PriorityClass,
    ReplicaSet,
    Requirement,
    Selector,
    Service,
    StatefulSet,
)
from skep.arena.scheduler.classes import ClassKey, PodClass
from skep.arena.scheduler.matching import selects
from skep.arena.scheduler.table import NodeTable
from skep.arena.state import WorkloadState

IDLE_MAX: Final = 4096
"""Classes without pods that are kept."""
SYSTEM_PRIORITIES: Final = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


class PodClasses:
    """All classes, by number. `priorities` and `services` are the cluster's own, which a class depends on."""

    def __init__(
        self, table: NodeTable, priorities: Mapping[str, PriorityClass], services: Mapping[str, Service]
    ) -> None:
        self._table, self._priorities, self._services = table, priorities, services
        self.by_id: dict[int, PodClass] = {}
        self.next_id = 1
        self.on_dropped: Callable[[int], None] = lambda _: None
        self._ids: dict[bytes, int] = {}
        self._idle = 0

    def of(self, namespace: str, template: PodTemplate, owner: WorkloadState | None) -> PodClass:
        """Return the class of such a pod, made on first sight."""
        priority = self._priority(template)
        key = ClassKey(namespace, template, priority, self._default_selector(namespace, template, owner))
        code = msgspec.msgpack.encode(key)
        found = self._ids.get(code)
        return self.by_id[found] if found is not None else self._admit(key, code)

    def _admit(self, key: ClassKey, code: bytes) -> PodClass:
        if self._idle > IDLE_MAX:
            self._drop_idle()
        cls = PodClass(self.next_id, key, self._table.columns)
        self.next_id += 1
        self.by_id[cls.id] = cls
        self._ids[code] = cls.id
        self._idle += 1
        self._table.admit_class(cls, self.by_id.values())
        return cls

    def adopt(self, classes: dict[int, PodClass], next_id: int) -> None:
        """Take up the classes of a copied cluster."""
        self.next_id = next_id
        self.by_id.update(classes)
        self._ids.update((msgspec.msgpack.encode(cls.key), number) for number, cls in classes.items())
        self._idle = sum(not cls.refs for cls in classes.values())

    def joined(self, cls: PodClass) -> None:
        """Count a pod in."""
        self._idle -= not cls.refs
        cls.refs += 1

    def left(self, cls: PodClass) -> None:
        """Count a pod out."""
        cls.refs -= 1
        self._idle += not cls.refs

    def any_below(self, priority: int) -> bool:
        """True when any pod may be less important than this priority."""
        return any(cls.refs and cls.priority < priority for cls in self.by_id.values())

    def _drop_idle(self) -> None:
        idle = [number for number, cls in self.by_id.items() if not cls.refs]
        for number in idle:
            del self._ids[msgspec.msgpack.encode(self.by_id.pop(number).key)]
            self.on_dropped(number)
        self._idle = 0

    def _priority(self, template: PodTemplate) -> int:
        if template.priority is not None:
            return template.priority
        name = template.priority_class
        if name:
            named = self._priorities.get(name)
            return named.value if named is not None else SYSTEM_PRIORITIES.get(name, 0)
        if self._priorities:
            return next((item.value for item in self._priorities.values() if item.is_default), 0)
        return 0

    def _default_selector(
        self, namespace: str, template: PodTemplate, owner: WorkloadState | None
    ) -> Selector | None:
        """Return what the scheduler's default spread counts: services' and the owner's selectors together."""
        found: tuple[Requirement, ...] = ()
        for service in self._services.values():
            if service.namespace == namespace and selects(service.selector, template.labels):
                assert service.selector is not None
                found += service.selector.requirements
        if owner is not None and isinstance(owner.spec, ReplicaSet | StatefulSet):
            found += owner.spec.selector.requirements
        return Selector(found) if found else None
