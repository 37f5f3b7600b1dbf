"""What changes while a simulated cluster runs: pods, nodes and workloads. Times are integer microseconds of virtual time."""

from enum import IntEnum

import msgspec

from skep.arena.objects import Node, PodTemplate, Taint, Workload

US = 1_000_000
"""Microseconds in a second."""
NOWHERE = -1
"""The node of a pod that has none."""


class Phase(IntEnum):
    """A pod's phase, as the API names it."""

    PENDING = 0
    RUNNING = 1
    SUCCEEDED = 2
    FAILED = 3


class PodState(msgspec.Struct):
    """A pod. `life` counts its container starts and deletions, so that a stale event is told from a live one."""

    uid: int
    namespace: str
    name: str
    cls: int
    priority: int
    owner: int = 0
    created_us: int = 0
    phase: Phase = Phase.PENDING
    node: int = NOWHERE
    nominated: int = NOWHERE
    ready: bool = False
    available: bool = False
    deleting: bool = False
    bound_us: int = -1
    ready_us: int = -1
    ended_us: int = -1
    attempts: int = 0
    queued_us: int = 0
    restarts: int = 0
    restart_delay_us: int = 0
    oom_kills: int = 0
    life: int = 0
    ordinal: int = -1
    revision: str = ""
    reason: str = ""
    runs_us: int = -1
    exit_code: int = 0

    @property
    def is_terminal(self) -> bool:
        """True when the pod will never run again."""
        return self.phase >= Phase.SUCCEEDED

    @property
    def is_active(self) -> bool:
        """True when a controller counts the pod as one of its own."""
        return self.phase < Phase.SUCCEEDED and not self.deleting


class NodeState(msgspec.Struct):
    """A node. `row` is what its pods use, column by column; `all` and `live` count its pods by class.

    `live` leaves out pods that are being deleted, as topology spread does. `slot` is the place in the table's
    order, -1 while the table waits to be rebuilt; `stamp` counts the changes of its pods.
    """

    id: int
    spec: Node
    ready: bool = True
    cordoned: bool = False
    taints: tuple[Taint, ...] = ()
    pods: dict[int, None] = {}
    row: list[int] = []
    ports: dict[tuple[str, str, int], int] = {}
    all: dict[int, int] = {}
    live: dict[int, int] = {}
    images: dict[str, int] = {}
    pulled: dict[str, None] = {}
    slot: int = -1
    stamp: int = 0


class WorkloadState(msgspec.Struct):
    """A workload and what its controller counts. `active`, `ready`, `available` are of its pods.

    `children` are a deployment's replica sets; `rolled` is False while the controller waits for readiness; `ended`
    are a job's pods that ended and are not counted yet (uid, success, index); `templates` are a stateful set's revisions.
    """

    uid: int
    spec: Workload
    owner: int = 0
    pods: dict[int, None] = {}
    children: dict[int, None] = {}
    active: int = 0
    ready: int = 0
    available: int = 0
    rolled: bool = False
    revision: str = ""
    revision_number: int = 0
    succeeded: int = 0
    failed: int = 0
    completed: dict[int, None] = {}
    retry_us: int = 0
    started_us: int = -1
    finished: str = ""
    lifetimes_us: list[int] = []
    created: int = 0
    scaled_for: int = -1
    ended: list[tuple[int, int, int]] = []
    templates: dict[str, PodTemplate] = {}
    stable_revision: str = ""

    @property
    def key(self) -> str:
        """Return namespace/name."""
        return f"{self.spec.namespace}/{self.spec.name}"
