"""The Kubernetes objects that the simulated cluster knows, as small frozen structs in integers.

Amounts: millicores for `cpu`, else bytes or counts. Times: seconds as the manifests say them. Parsing is in
`manifests.py` (`parse` here is its entry); what changes while a cluster runs is in `state.py`.
"""

from enum import StrEnum

import msgspec

NONZERO_CPU_MILLI = 100
"""What scoring assumes of a container that requests no CPU (`DefaultMilliCPURequest`, pkg/scheduler/util)."""
NONZERO_MEMORY_BYTES = 200 * 1024 * 1024
"""What scoring assumes of a container that requests no memory (`DefaultMemoryRequest`, pkg/scheduler/util)."""


class Effect(StrEnum):
    """What a taint does."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Taint(msgspec.Struct, frozen=True, array_like=True):
    """A mark on a node that keeps pods off unless they tolerate it."""

    key: str
    value: str = ""
    effect: str = Effect.NO_SCHEDULE


class Toleration(msgspec.Struct, frozen=True, array_like=True):
    """Which taints a pod bears; an empty key with `Exists` bears all. `seconds` bounds a NoExecute stay."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""
    seconds: float | None = None


class Requirement(msgspec.Struct, frozen=True, array_like=True):
    """One comparison with a label: In, NotIn, Exists, DoesNotExist, Gt, Lt."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class Selector(msgspec.Struct, frozen=True, array_like=True):
    """All of its requirements must hold; none at all matches everything."""

    requirements: tuple[Requirement, ...] = ()


class NodeTerm(msgspec.Struct, frozen=True, array_like=True):
    """One node-selector term: label expressions and field expressions (only `metadata.name`), all must hold."""

    expressions: tuple[Requirement, ...] = ()
    fields: tuple[Requirement, ...] = ()


class WeightedNodeTerm(msgspec.Struct, frozen=True, array_like=True):
    """A preferred node term with its weight (1 to 100)."""

    weight: int
    term: NodeTerm


class PodTerm(msgspec.Struct, frozen=True, array_like=True):
    """One pod (anti-)affinity term; `namespaces` is resolved. `selector` None matches nothing."""

    topology_key: str
    selector: Selector | None
    namespaces: tuple[str, ...] = ()
    namespace_selector: Selector | None = None
    match_keys: tuple[str, ...] = ()
    mismatch_keys: tuple[str, ...] = ()


class WeightedPodTerm(msgspec.Struct, frozen=True, array_like=True):
    """A preferred pod term with its weight (1 to 100; scoring negates it for anti-affinity)."""

    weight: int
    term: PodTerm


class SpreadConstraint(msgspec.Struct, frozen=True, array_like=True):
    """One topology spread constraint; `hard` is DoNotSchedule."""

    max_skew: int
    topology_key: str
    hard: bool
    selector: Selector | None
    min_domains: int = 1
    honor_affinity: bool = True
    honor_taints: bool = False
    match_keys: tuple[str, ...] = ()


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """What a trace says a pod really does. None: not said, so nothing follows from it.

    `memory_bytes` above the limit is an out-of-memory kill `memory_after_s` after the start; `runs_s` ends the
    container with `exit_code`, and `ends` the pod with it, whatever its restart policy (a lifetime in a trace).
    """

    cpu_milli: int | None = None
    memory_bytes: int | None = None
    memory_after_s: float = 1.0
    runs_s: float | None = None
    exit_code: int = 0
    ends: bool = False


class PodTemplate(msgspec.Struct, frozen=True):
    """All that scheduling and running a pod depend on.

    `requests` is the effective sum: init containers, sidecars and overhead counted as Kubernetes does.
    """

    labels: dict[str, str]
    requests: dict[str, int]
    limits: dict[str, int]
    nonzero_cpu: int
    nonzero_memory: int
    images: tuple[str, ...] = ()
    host_ports: tuple[tuple[str, str, int], ...] = ()
    node_name: str = ""
    node_selector: tuple[tuple[str, str], ...] = ()
    node_required: tuple[NodeTerm, ...] | None = None
    node_preferred: tuple[WeightedNodeTerm, ...] = ()
    affinity_required: tuple[PodTerm, ...] = ()
    affinity_preferred: tuple[WeightedPodTerm, ...] = ()
    anti_required: tuple[PodTerm, ...] = ()
    anti_preferred: tuple[WeightedPodTerm, ...] = ()
    spread: tuple[SpreadConstraint, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    priority: int | None = None
    priority_class: str = ""
    preempts: bool = True
    gates: tuple[str, ...] = ()
    restart_policy: str = "Always"
    grace_s: float = 30.0
    ready_after_s: float = 0.0
    deletion_cost: int = 0
    usage: Usage | None = None


class Node(msgspec.Struct, frozen=True):
    """A node as its manifest declares it. `allocatable` includes `pods`."""

    name: str
    labels: dict[str, str]
    allocatable: dict[str, int]
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False
    images: dict[str, int] = {}
    ready: bool = True


class Pod(msgspec.Struct, frozen=True):
    """A pod that nobody owns."""

    namespace: str
    name: str
    template: PodTemplate


class ReplicaSet(msgspec.Struct, frozen=True, tag=True):
    """`replicas` pods of one template."""

    namespace: str
    name: str
    replicas: int
    selector: Selector
    template: PodTemplate
    min_ready_s: float = 0.0
    labels: dict[str, str] = {}


class Deployment(msgspec.Struct, frozen=True, tag=True):
    """Replica sets, rolled from template to template. Surge and unavailable are a count or a percentage."""

    namespace: str
    name: str
    replicas: int
    selector: Selector
    template: PodTemplate
    max_surge: int | str = "25%"
    max_unavailable: int | str = "25%"
    recreate: bool = False
    min_ready_s: float = 0.0
    paused: bool = False
    revisions_kept: int = 10
    labels: dict[str, str] = {}


class StatefulSet(msgspec.Struct, frozen=True, tag=True):
    """Pods with ordinals."""

    namespace: str
    name: str
    replicas: int
    selector: Selector
    template: PodTemplate
    parallel: bool = False
    on_delete: bool = False
    partition: int = 0
    max_unavailable: int = 1
    start_ordinal: int = 0
    min_ready_s: float = 0.0
    labels: dict[str, str] = {}


class Job(msgspec.Struct, frozen=True, tag=True):
    """Pods that run to completion. `completions` None: any success is enough."""

    namespace: str
    name: str
    template: PodTemplate
    parallelism: int = 1
    completions: int | None = 1
    backoff_limit: int = 6
    indexed: bool = False
    active_deadline_s: float | None = None
    ttl_s: float | None = None
    suspended: bool = False
    labels: dict[str, str] = {}


class PriorityClass(msgspec.Struct, frozen=True):
    """A named priority."""

    name: str
    value: int
    is_default: bool = False
    preempts: bool = True


class DisruptionBudget(msgspec.Struct, frozen=True):
    """A PodDisruptionBudget: a count or a percentage that must stay, or that may go."""

    namespace: str
    name: str
    selector: Selector
    min_available: int | str | None = None
    max_unavailable: int | str | None = None


class Namespace(msgspec.Struct, frozen=True):
    """A namespace; only its labels matter here."""

    name: str
    labels: dict[str, str] = {}


class Service(msgspec.Struct, frozen=True):
    """A service; its selector takes part in the default topology spread."""

    namespace: str
    name: str
    selector: Selector | None


class Inert(msgspec.Struct, frozen=True):
    """An object of a kind that has no effect on pods (ConfigMap, Secret, …); kept by name only."""

    kind: str
    namespace: str
    name: str


Workload = Deployment | ReplicaSet | StatefulSet | Job
Parsed = Workload | Pod | Node | PriorityClass | DisruptionBudget | Namespace | Service | Inert
