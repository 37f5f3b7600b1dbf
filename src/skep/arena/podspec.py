"""A pod template's manifest to a `PodTemplate`: effective requests, affinity, spread, tolerations, usage.

Besides the fields of Kubernetes, these annotations say what a pod really does: `arena.skep/memory-used`,
`arena.skep/memory-used-after-s`, `arena.skep/cpu-used`, `arena.skep/runs-s`, `arena.skep/exit-code`, and SimKube's
`simkube.io/lifetime-seconds`.
"""

from typing import Final

from skep.arena.fields import Fields
from skep.arena.objects import (
    NONZERO_CPU_MILLI,
    NONZERO_MEMORY_BYTES,
    NodeTerm,
    PodTemplate,
    PodTerm,
    Requirement,
    Selector,
    SpreadConstraint,
    Toleration,
    Usage,
    WeightedNodeTerm,
    WeightedPodTerm,
)
from skep.arena.quantity import amount, milli, whole
from skep.errors.arena import InvalidManifest

OPERATORS: Final = frozenset(("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"))
PREFIX: Final = "arena.skep/"
SIMKUBE_LIFETIME: Final = "simkube.io/lifetime-seconds"
WEIGHT_MAX: Final = 100
DEFAULT_NAMES: Final = {"cpu": NONZERO_CPU_MILLI, "memory": NONZERO_MEMORY_BYTES}


def _requirements(items: list[Fields]) -> tuple[Requirement, ...]:
    found = []
    for item in items:
        operator = item.text("operator")
        if operator not in OPERATORS:
            item.fail("operator", f"one of {', '.join(sorted(OPERATORS))}")
        found.append(Requirement(item.text("key"), operator, tuple(item.strings("values"))))
    return tuple(found)


def selector_of(fields: Fields) -> Selector:
    """Return a label selector (`matchLabels`, `matchExpressions`)."""
    wanted = fields.texts("matchLabels")
    exact = tuple(Requirement(key, "In", (value,)) for key, value in wanted.items())
    if "matchExpressions" not in fields:
        return Selector(exact)
    return Selector(exact + _requirements(fields.children("matchExpressions")))


def _node_term(fields: Fields) -> NodeTerm:
    return NodeTerm(
        _requirements(fields.children("matchExpressions")), _requirements(fields.children("matchFields"))
    )


def _pod_term(fields: Fields, namespace: str) -> PodTerm:
    key = fields.text("topologyKey")
    if not key:
        fields.fail("topologyKey", "a label key")
    selector = selector_of(fields.child("labelSelector")) if fields.raw("labelSelector") is not None else None
    names = tuple(fields.strings("namespaces"))
    namespaced = (
        selector_of(fields.child("namespaceSelector"))
        if fields.raw("namespaceSelector") is not None
        else None
    )
    if not names and namespaced is None:
        names = (namespace,)
    return PodTerm(
        key,
        selector,
        names,
        namespaced,
        tuple(fields.strings("matchLabelKeys")),
        tuple(fields.strings("mismatchLabelKeys")),
    )


def _weight(fields: Fields) -> int:
    return fields.integer("weight", 1, lowest=1, highest=WEIGHT_MAX)


def _affinity(spec: Fields, namespace: str) -> dict[str, object]:
    affinity = spec.child("affinity")
    if not affinity:
        return {}
    required, preferred = (
        "requiredDuringSchedulingIgnoredDuringExecution",
        "preferredDuringSchedulingIgnoredDuringExecution",
    )
    node, pod, anti = (affinity.child(name) for name in ("nodeAffinity", "podAffinity", "podAntiAffinity"))
    return {
        "node_required": tuple(
            _node_term(term) for term in node.child(required).children("nodeSelectorTerms")
        )
        if required in node
        else None,
        "node_preferred": tuple(
            WeightedNodeTerm(_weight(item), _node_term(item.child("preference")))
            for item in node.children(preferred)
        ),
        "affinity_required": tuple(_pod_term(term, namespace) for term in pod.children(required)),
        "anti_required": tuple(_pod_term(term, namespace) for term in anti.children(required)),
        "affinity_preferred": tuple(
            WeightedPodTerm(_weight(item), _pod_term(item.child("podAffinityTerm"), namespace))
            for item in pod.children(preferred)
        ),
        "anti_preferred": tuple(
            WeightedPodTerm(_weight(item), _pod_term(item.child("podAffinityTerm"), namespace))
            for item in anti.children(preferred)
        ),
    }


def _spread(fields: Fields) -> SpreadConstraint:
    when = fields.text("whenUnsatisfiable", "DoNotSchedule")
    if when not in {"DoNotSchedule", "ScheduleAnyway"}:
        fields.fail("whenUnsatisfiable", "DoNotSchedule or ScheduleAnyway")
    key = fields.text("topologyKey")
    if not key:
        fields.fail("topologyKey", "a label key")
    selector = selector_of(fields.child("labelSelector")) if fields.raw("labelSelector") is not None else None
    return SpreadConstraint(
        max_skew=fields.integer("maxSkew", 1, lowest=1, highest=2**31),
        topology_key=key,
        hard=when == "DoNotSchedule",
        selector=selector,
        min_domains=fields.integer("minDomains", 1, lowest=1),
        honor_affinity=fields.text("nodeAffinityPolicy", "Honor") == "Honor",
        honor_taints=fields.text("nodeTaintsPolicy", "Ignore") == "Honor",
        match_keys=tuple(fields.strings("matchLabelKeys")),
    )


def _toleration(fields: Fields) -> Toleration:
    seconds = fields.raw("tolerationSeconds")
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float)):
        fields.fail("tolerationSeconds", "a number")
    return Toleration(
        fields.text("key"),
        fields.text("operator") or "Equal",
        fields.text("value"),
        fields.text("effect"),
        None if seconds is None else max(0.0, float(seconds)),
    )


Amounts = dict[str, int]


def _amounts(fields: Fields) -> Amounts:
    return {key: amount(key, value) for key, value in fields.items()}


def _container(fields: Fields) -> tuple[Amounts, Amounts]:
    resources = fields.child("resources")
    if not resources:
        return {}, {}
    limits = _amounts(resources.child("limits"))
    requests = limits | _amounts(resources.child("requests"))
    for name, limit in limits.items():
        if requests[name] > limit:
            where = f"{resources.where}.requests.{name}"
            raise InvalidManifest(f"{where}: a request may not be above its limit", where=where)
    return requests, limits


def _add(total: Amounts, more: Amounts) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


def _raise_to(total: Amounts, other: Amounts) -> None:
    for name, value in other.items():
        if value > total.get(name, 0):
            total[name] = value


def _effective(spec: Fields, containers: list[Fields]) -> tuple[Amounts, Amounts, Amounts]:
    """Return requests, requests as scoring sees them, and limits, of the pod as a whole.

    The rule of pod-lifecycle/init-containers: the larger of the containers' sum (with sidecars) and of each init
    container with the sidecars before it; overhead is added at the end.
    """
    requests: Amounts = {}
    scored: Amounts = {}
    limits: Amounts = {}
    for container in containers:
        asked, limit = _container(container)
        _add(requests, asked)
        _add(scored, DEFAULT_NAMES | asked if asked else DEFAULT_NAMES)
        _add(limits, limit)
    if "initContainers" in spec:
        sidecars: Amounts = {}
        sidecars_scored: Amounts = {}
        peak: Amounts = {}
        peak_scored: Amounts = {}
        for container in spec.children("initContainers"):
            asked, limit = _container(container)
            filled = DEFAULT_NAMES | asked
            alone, alone_scored = dict(asked), dict(filled)
            _add(alone, sidecars)
            _add(alone_scored, sidecars_scored)
            _raise_to(peak, alone)
            _raise_to(peak_scored, alone_scored)
            if container.text("restartPolicy") == "Always":
                _add(sidecars, asked)
                _add(sidecars_scored, filled)
                _add(limits, limit)
        _add(requests, sidecars)
        _add(scored, sidecars_scored)
        _raise_to(requests, peak)
        _raise_to(scored, peak_scored)
    if "overhead" in spec:
        overhead = _amounts(spec.child("overhead"))
        _add(requests, overhead)
        _add(scored, overhead)
    return requests, scored, limits


def _number(texts: dict[str, str], key: str, where: str) -> float | None:
    value = texts.get(key)
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < 2**53:
        raise InvalidManifest(
            f"{where}.{key}: a number that is 0 or more is needed, not {value!r}", where=where
        )
    return number


def _usage(texts: dict[str, str], where: str) -> Usage | None:
    if not any(key.startswith(PREFIX) or key == SIMKUBE_LIFETIME for key in texts):
        return None
    memory, cpu = texts.get(f"{PREFIX}memory-used"), texts.get(f"{PREFIX}cpu-used")
    runs = _number(texts, f"{PREFIX}runs-s", where)
    after = _number(texts, f"{PREFIX}memory-used-after-s", where)
    return Usage(
        cpu_milli=None if cpu is None else milli(cpu),
        memory_bytes=None if memory is None else whole(memory),
        memory_after_s=1.0 if after is None else after,
        runs_s=_number(texts, SIMKUBE_LIFETIME, where) if runs is None else runs,
        ends=runs is None and SIMKUBE_LIFETIME in texts,
        exit_code=int(_number(texts, f"{PREFIX}exit-code", where) or 0),
    )


def _host_ports(spec: Fields, containers: list[Fields]) -> tuple[tuple[str, str, int], ...]:
    on_host = spec.boolean("hostNetwork", default=False)
    found = []
    for container in containers:
        for port in container.children("ports"):
            number = port.integer(
                "hostPort", port.integer("containerPort", 0) if on_host else 0, highest=65_535
            )
            if number:
                found.append((port.text("hostIP") or "0.0.0.0", port.text("protocol") or "TCP", number))  # noqa: S104 - the API's word for every address
    return tuple(found)


def _ready_after(containers: list[Fields]) -> float:
    delays = [
        container.child("readinessProbe").number("initialDelaySeconds") or 0.0
        for container in containers
        if "readinessProbe" in container
    ]
    return max(delays, default=0.0)


def parse_template(manifest: Fields, namespace: str, restart_policy: str = "Always") -> PodTemplate:
    """Return the template that `metadata` and `spec` of `manifest` declare.

    Raises: InvalidManifest, InvalidQuantity.
    """
    metadata, spec = manifest.child("metadata"), manifest.child("spec")
    containers = spec.children("containers")
    if not containers:
        spec.fail("containers", "at least one container")
    labels, annotations = metadata.texts("labels"), metadata.texts("annotations")
    requests, scored, limits = _effective(spec, containers)
    grace_s = spec.number("terminationGracePeriodSeconds")
    priority = spec.raw("priority")
    if priority is not None:
        priority = spec.integer("priority", 0, lowest=-(2**31), highest=2**31)
    return PodTemplate(
        labels=labels,
        requests={name: value for name, value in requests.items() if value},
        limits=limits,
        nonzero_cpu=scored.get("cpu", 0),
        nonzero_memory=scored.get("memory", 0),
        images=tuple(image for container in containers if (image := container.text("image"))),
        host_ports=_host_ports(spec, containers),
        node_name=spec.text("nodeName"),
        node_selector=tuple(spec.texts("nodeSelector").items()),
        spread=tuple(_spread(item) for item in spec.children("topologySpreadConstraints")),
        tolerations=tuple(_toleration(item) for item in spec.children("tolerations")),
        priority=priority,
        priority_class=spec.text("priorityClassName"),
        preempts=spec.text("preemptionPolicy") != "Never",
        gates=tuple(gate.text("name") for gate in spec.children("schedulingGates")),
        restart_policy=spec.text("restartPolicy") or restart_policy,
        grace_s=30.0 if grace_s is None else grace_s,
        ready_after_s=_ready_after(containers),
        deletion_cost=_deletion_cost(annotations, manifest.where),
        usage=_usage(annotations, manifest.where) if annotations else None,
        **_affinity(spec, namespace),  # type: ignore[arg-type]
    )


def _deletion_cost(annotations: dict[str, str], where: str) -> int:
    value = annotations.get("controller.kubernetes.io/pod-deletion-cost", "0")
    try:
        return int(value)
    except ValueError:
        raise InvalidManifest(
            f"{where}: pod-deletion-cost {value!r} is not an integer", where=where
        ) from None
