"""A simulated cluster as bytes, and as an independent copy.

Caches are not part of it: they are rebuilt from the state and hold the same numbers. Neither are explanations of past
decisions; a fork keeps them, a snapshot does not.
"""

import hashlib
from collections.abc import Callable
from copy import copy
from typing import Final, Protocol, TypeVar

import msgspec

from skep.arena.cluster import Cluster
from skep.arena.history import HistoryState
from skep.arena.objects import DisruptionBudget, Inert, PriorityClass, Service
from skep.arena.profile import Profile
from skep.arena.scheduler.classes import ClassKey, Columns, PodClass
from skep.arena.scheduler.loop import SchedulerLoop
from skep.arena.scheduler.queue import Waiting
from skep.arena.state import NodeState, PodState, WorkloadState
from skep.arena.timeline import Entry
from skep.errors.arena import SnapshotUnreadable

MAGIC: Final = b"skep-arena-cluster/1\n"
DIGEST_BYTES: Final = 32


class Whole(Protocol):
    """What is copied: a cluster and its scheduler, with what they were made of."""

    seed: int
    profile: Profile
    cluster: Cluster
    scheduler: SchedulerLoop


T = TypeVar("T", bound=Whole)


class Numbers(msgspec.Struct, array_like=True):
    """Everything that is one number or one flag."""

    rng: int
    now_us: int
    sequence: int
    busy: int
    next_uid: int
    next_node_id: int
    next_class_id: int
    pods_created: int
    queue_sequence: int
    next_start: int
    free_us: int
    planned: bool
    flush_planned: bool


class Image(msgspec.Struct, array_like=True):
    """The state of a cluster."""

    profile: Profile
    seed: int
    numbers: Numbers
    heap: list[Entry]
    columns: list[str]
    classes: list[tuple[int, ClassKey, int]]
    pods: list[PodState]
    nodes: list[NodeState]
    workloads: list[WorkloadState]
    priorities: dict[str, PriorityClass]
    budgets: dict[str, DisruptionBudget]
    services: dict[str, Service]
    namespaces: dict[str, dict[str, str]]
    inert: dict[str, Inert]
    terminated: dict[int, None]
    nominated: dict[int, dict[int, None]]
    active: list[tuple[int, int, int, int]]
    backing_off: list[tuple[int, int, int]]
    waiting: dict[int, Waiting]
    where: dict[int, int]
    history: HistoryState


def _image(source: Whole) -> Image:
    cluster, scheduler = source.cluster, source.scheduler
    timeline, queue = cluster.timeline, scheduler.queue
    numbers = Numbers(
        cluster.rng.state,
        timeline.now_us,
        timeline.sequence,
        timeline.busy,
        cluster.next_uid,
        cluster.next_node_id,
        cluster.pod_classes.next_id,
        cluster.pods_created,
        queue.sequence,
        scheduler.placer.next_start,
        scheduler.free_us,
        scheduler.planned,
        scheduler.flush_planned,
    )
    return Image(
        source.profile,
        source.seed,
        numbers,
        timeline.heap,
        cluster.columns.names,
        [(number, cls.key, cls.refs) for number, cls in cluster.classes.items()],
        list(cluster.pods.values()),
        list(cluster.nodes.values()),
        list(cluster.workloads.values()),
        cluster.priorities,
        cluster.budgets,
        cluster.services,
        cluster.namespaces,
        cluster.inert,
        cluster.terminated,
        cluster.nominated,
        queue.active,
        queue.backing_off,
        queue.waiting,
        queue.where,
        cluster.history.state(),
    )


def _copied(image: Image) -> Image:
    """Return an image that shares nothing that changes with its source."""
    found = copy(image)
    found.numbers = copy(image.numbers)
    found.heap = image.heap[:]
    found.columns = image.columns[:]
    found.pods = [copy(pod) for pod in image.pods]
    found.nodes = [_copied_node(node) for node in image.nodes]
    found.workloads = [_copied_workload(workload) for workload in image.workloads]
    for name in ("priorities", "budgets", "services", "namespaces", "inert", "terminated", "where"):
        setattr(found, name, dict(getattr(image, name)))
    found.nominated = {node: dict(pods) for node, pods in image.nominated.items()}
    found.active, found.backing_off = image.active[:], image.backing_off[:]
    found.waiting = {uid: copy(waiting) for uid, waiting in image.waiting.items()}
    return found


def _copied_node(node: NodeState) -> NodeState:
    found = copy(node)
    found.pods, found.row, found.ports = dict(node.pods), node.row[:], dict(node.ports)
    found.all, found.live = dict(node.all), dict(node.live)
    found.images, found.pulled = dict(node.images), dict(node.pulled)
    return found


def _copied_workload(workload: WorkloadState) -> WorkloadState:
    found = copy(workload)
    found.pods, found.children = dict(workload.pods), dict(workload.children)
    found.completed, found.ended = dict(workload.completed), workload.ended[:]
    found.templates = dict(workload.templates)
    return found


def _install(target: Whole, image: Image, classes: dict[int, PodClass]) -> None:
    cluster, scheduler, numbers = target.cluster, target.scheduler, image.numbers
    timeline, queue = cluster.timeline, scheduler.queue
    cluster.rng.state = numbers.rng
    timeline.now_us, timeline.sequence, timeline.busy = numbers.now_us, numbers.sequence, numbers.busy
    timeline.heap[:] = image.heap
    cluster.next_uid, cluster.next_node_id = numbers.next_uid, numbers.next_node_id
    cluster.pods_created = numbers.pods_created
    cluster.pod_classes.adopt(classes, numbers.next_class_id)
    cluster.pods.update((pod.uid, pod) for pod in image.pods)
    cluster.pod_uids.update((f"{pod.namespace}/{pod.name}", pod.uid) for pod in image.pods)
    cluster.nodes.update((node.id, node) for node in image.nodes)
    cluster.node_ids.update((node.spec.name, node.id) for node in image.nodes)
    for workload in image.workloads:
        cluster.workloads[workload.uid] = workload
        spec = workload.spec
        cluster.workload_uids[type(spec).__name__, spec.namespace, spec.name] = workload.uid
    for name in ("priorities", "budgets", "services", "namespaces", "inert", "terminated", "nominated"):
        getattr(cluster, name).update(getattr(image, name))
    queue.active[:], queue.backing_off[:] = image.active, image.backing_off
    queue.waiting.update(image.waiting)
    queue.where.update(image.where)
    queue.sequence = numbers.queue_sequence
    scheduler.placer.next_start = numbers.next_start
    scheduler.free_us, scheduler.planned = numbers.free_us, numbers.planned
    scheduler.flush_planned = numbers.flush_planned
    cluster.history.restore(image.history)
    cluster.table.invalidate()


def dump(source: Whole) -> bytes:
    """Return the bytes of a cluster's state."""
    body = msgspec.msgpack.encode(_image(source))
    return MAGIC + hashlib.sha256(body).digest() + body


def load(data: bytes, make: Callable[[int, Profile], T]) -> T:
    """Return the cluster that `dump` wrote; `make` gives an empty one. Raises: SnapshotUnreadable."""
    if not data.startswith(MAGIC):
        raise SnapshotUnreadable("these bytes are no snapshot of a simulated cluster, or of another version")
    digest, body = data[len(MAGIC) : len(MAGIC) + DIGEST_BYTES], data[len(MAGIC) + DIGEST_BYTES :]
    if hashlib.sha256(body).digest() != digest:
        raise SnapshotUnreadable("the snapshot is damaged: its digest does not match")
    try:
        image = msgspec.msgpack.decode(body, type=Image)
    except msgspec.MsgspecError as error:
        raise SnapshotUnreadable(f"the snapshot is of another version: {error}") from error
    target = make(image.seed, image.profile)
    _use_columns(target.cluster, Columns(image.columns))
    classes = {}
    for number, key, refs in image.classes:
        cls = PodClass(number, key, target.cluster.columns)
        cls.refs = refs
        classes[number] = cls
    _install(target, image, classes)
    return target


def _use_columns(cluster: Cluster, columns: Columns) -> None:
    cluster.columns = cluster.table.columns = columns


def fork(source: T, make: Callable[[int, Profile], T]) -> T:
    """Return an independent copy; `make` gives an empty one. What the sink of the source gets, the copy's does not."""
    image = _copied(_image(source))
    target = make(source.seed, source.profile)
    _use_columns(target.cluster, source.cluster.columns.clone())
    classes = {number: cls.clone() for number, cls in source.cluster.classes.items()}
    _install(target, image, classes)
    target.scheduler.captures.take(source.scheduler.captures)
    return target
