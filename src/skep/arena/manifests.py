"""Kubernetes manifests (dictionaries) to the structs of `objects.py`. No other file knows the manifests' fields.

What is read is what scheduling and running depend on; unknown fields are left alone, wrong ones are told by path.
"""

from collections.abc import Callable
from typing import Any, Final

from skep.arena.fields import Fields
from skep.arena.objects import (
    Deployment,
    DisruptionBudget,
    Inert,
    Job,
    Namespace,
    Node,
    Parsed,
    Pod,
    PriorityClass,
    ReplicaSet,
    Requirement,
    Selector,
    Service,
    StatefulSet,
    Taint,
)
from skep.arena.podspec import parse_template, selector_of
from skep.arena.quantity import amount
from skep.errors.arena import InvalidManifest, UnknownKind

REPLICAS_MAX: Final = 1_000_000
INERT_KINDS: Final = frozenset(
    (
        "APIService",
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "CSIDriver",
        "CustomResourceDefinition",
        "Endpoints",
        "EndpointSlice",
        "Event",
        "HorizontalPodAutoscaler",
        "Ingress",
        "IngressClass",
        "Lease",
        "LimitRange",
        "MutatingWebhookConfiguration",
        "NetworkPolicy",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "ResourceQuota",
        "Role",
        "RoleBinding",
        "RuntimeClass",
        "Secret",
        "ServiceAccount",
        "StorageClass",
        "ValidatingWebhookConfiguration",
        "VolumeAttachment",
    )
)
"""Kinds that are accepted and have no effect on where pods run."""
UNNAMESPACED: Final = frozenset(("Node", "PriorityClass", "Namespace"))


def _pods_default(requests: dict[str, int]) -> dict[str, int]:
    requests.setdefault("pods", 110)
    return requests


def _node(manifest: Fields) -> Node:
    spec, status, metadata = manifest.child("spec"), manifest.child("status"), manifest.child("metadata")
    name = metadata.text("name")
    where = f"{metadata.where}.name"
    if not name:
        raise InvalidManifest(f"{where}: a node needs a name", where=where)
    labels = metadata.texts("labels")
    labels.setdefault("kubernetes.io/hostname", name)
    resources = status.child("allocatable") or status.child("capacity")
    images: dict[str, int] = {}
    for image in status.children("images"):
        size = image.integer("sizeBytes", 0)
        images.update(dict.fromkeys(image.strings("names"), size))
    ready = True
    for condition in status.children("conditions"):
        if condition.text("type") == "Ready":
            ready = condition.text("status") == "True"
    return Node(
        name=name,
        labels=labels,
        allocatable=_pods_default({key: amount(key, value) for key, value in resources.items()}),
        taints=tuple(
            Taint(taint.text("key"), taint.text("value"), taint.text("effect"))
            for taint in spec.children("taints")
        ),
        unschedulable=spec.boolean("unschedulable", default=False),
        images=images,
        ready=ready,
    )


def _named(manifest: Fields) -> tuple[str, str]:
    metadata = manifest.child("metadata")
    name = metadata.text("name") or metadata.text("generateName")
    if not name:
        raise InvalidManifest(
            f"{manifest.where}.metadata.name: an object needs a name", where="metadata.name"
        )
    return metadata.text("namespace") or "default", name


def _pod(manifest: Fields) -> Pod:
    namespace, name = _named(manifest)
    return Pod(namespace, name, parse_template(manifest, namespace))


def _owned(manifest: Fields) -> dict[str, Any]:
    """Return what Deployment, ReplicaSet and StatefulSet share."""
    namespace, name = _named(manifest)
    spec = manifest.child("spec")
    template = parse_template(spec.child("template"), namespace)
    if "selector" in spec:
        selector = selector_of(spec.child("selector"))
    else:
        raise InvalidManifest(
            f"{spec.where}.selector: a workload needs a selector", where=f"{spec.where}.selector"
        )
    return {
        "namespace": namespace,
        "name": name,
        "replicas": spec.integer("replicas", 1, highest=REPLICAS_MAX),
        "selector": selector,
        "template": template,
        "min_ready_s": float(spec.integer("minReadySeconds", 0)),
        "labels": manifest.child("metadata").texts("labels"),
    }


def _replica_set(manifest: Fields) -> ReplicaSet:
    return ReplicaSet(**_owned(manifest))


def _deployment(manifest: Fields) -> Deployment:
    spec = manifest.child("spec")
    strategy = spec.child("strategy")
    rolling = strategy.child("rollingUpdate")
    return Deployment(
        **_owned(manifest),
        max_surge=rolling.count_or_percent("maxSurge", "25%"),
        max_unavailable=rolling.count_or_percent("maxUnavailable", "25%"),
        recreate=strategy.text("type") == "Recreate",
        paused=spec.boolean("paused", default=False),
        revisions_kept=spec.integer("revisionHistoryLimit", 10),
    )


def _stateful_set(manifest: Fields) -> StatefulSet:
    spec = manifest.child("spec")
    strategy = spec.child("updateStrategy")
    rolling = strategy.child("rollingUpdate")
    return StatefulSet(
        **_owned(manifest),
        parallel=spec.text("podManagementPolicy") == "Parallel",
        on_delete=strategy.text("type") == "OnDelete",
        partition=rolling.integer("partition", 0),
        start_ordinal=spec.child("ordinals").integer("start", 0),
    )


def _job(manifest: Fields) -> Job:
    namespace, name = _named(manifest)
    spec = manifest.child("spec")
    parallelism = spec.integer("parallelism", 1, highest=REPLICAS_MAX)
    default = None if "parallelism" in spec else 1
    return Job(
        namespace=namespace,
        name=name,
        template=parse_template(spec.child("template"), namespace, restart_policy="Never"),
        parallelism=parallelism,
        completions=spec.integer("completions", -1, lowest=0, highest=REPLICAS_MAX)
        if "completions" in spec
        else default,
        backoff_limit=spec.integer("backoffLimit", 6),
        indexed=spec.text("completionMode") == "Indexed",
        active_deadline_s=spec.number("activeDeadlineSeconds"),
        ttl_s=spec.number("ttlSecondsAfterFinished"),
        suspended=spec.boolean("suspend", default=False),
        labels=manifest.child("metadata").texts("labels"),
    )


def _priority_class(manifest: Fields) -> PriorityClass:
    return PriorityClass(
        name=_named(manifest)[1],
        value=manifest.integer("value", 0, lowest=-(2**31), highest=2**31),
        is_default=manifest.boolean("globalDefault", default=False),
        preempts=manifest.text("preemptionPolicy") != "Never",
    )


def _budget(manifest: Fields) -> DisruptionBudget:
    namespace, name = _named(manifest)
    spec = manifest.child("spec")
    return DisruptionBudget(
        namespace,
        name,
        selector_of(spec.child("selector")),
        spec.count_or_percent("minAvailable", None),
        spec.count_or_percent("maxUnavailable", None),
    )


def _namespace(manifest: Fields) -> Namespace:
    name = _named(manifest)[1]
    labels = manifest.child("metadata").texts("labels")
    labels.setdefault("kubernetes.io/metadata.name", name)
    return Namespace(name, labels)


def _service(manifest: Fields) -> Service:
    namespace, name = _named(manifest)
    wanted = manifest.child("spec").texts("selector")
    selector = Selector(tuple(Requirement(key, "In", (value,)) for key, value in wanted.items()))
    return Service(namespace, name, selector if wanted else None)


PARSERS: Final[dict[str, Callable[[Fields], Parsed]]] = {
    "Deployment": _deployment,
    "ReplicaSet": _replica_set,
    "StatefulSet": _stateful_set,
    "Job": _job,
    "Pod": _pod,
    "Node": _node,
    "PriorityClass": _priority_class,
    "PodDisruptionBudget": _budget,
    "Namespace": _namespace,
    "Service": _service,
}


def identity(manifest: dict[str, Any]) -> tuple[str, str, str]:
    """Return kind, namespace and name; the namespace is empty for what has none.

    Raises: InvalidManifest, UnknownKind.
    """
    if not isinstance(manifest, dict):
        raise InvalidManifest(f"a manifest is a mapping, not {type(manifest).__name__}", where="")
    kind = manifest.get("kind")
    if not isinstance(kind, str) or (kind not in PARSERS and kind not in INERT_KINDS):
        raise UnknownKind(f"the simulated cluster does not know the kind {kind!r}", kind=kind)
    namespace, name = _named(Fields(manifest, kind))
    return kind, "" if kind in UNNAMESPACED else namespace, name


def controller_of(manifest: dict[str, Any]) -> tuple[str, str, str] | None:
    """Return kind, namespace and name of the object that controls this one, or None. Raises: InvalidManifest."""
    metadata = Fields(manifest, str(manifest.get("kind"))).child("metadata")
    for owner in metadata.children("ownerReferences"):
        if owner.boolean("controller", default=False):
            return owner.text("kind"), metadata.text("namespace") or "default", owner.text("name")
    return None


def parse(manifest: dict[str, Any]) -> Parsed:
    """Return the object that a manifest declares.

    Raises: InvalidManifest (a wrong value, with its path), InvalidQuantity, UnknownKind.
    """
    if not isinstance(manifest, dict):
        raise InvalidManifest(f"a manifest is a mapping, not {type(manifest).__name__}", where="")
    kind = manifest.get("kind")
    parser = PARSERS.get(kind) if isinstance(kind, str) else None
    fields = Fields(manifest, str(kind))
    if parser is not None:
        return parser(fields)
    if kind in INERT_KINDS:
        namespace, name = _named(fields)
        return Inert(str(kind), namespace, name)
    raise UnknownKind(
        f"the simulated cluster does not know the kind {kind!r}; it knows {', '.join(PARSERS)}", kind=kind
    )
