"""A slow scheduler written straight from the documentation, to hold the fast one against.

It shares no code with `skep.arena.scheduler`: it walks all pods of all nodes for every question, in plain Python.
"""

import math
import random
from dataclasses import dataclass, field
from fractions import Fraction

import pytest

MIB = 1024 * 1024
HOSTNAME, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"


@dataclass
class RefPod:
    namespace: str
    template: object
    priority: int = 0
    default_selector: object = None
    deleting: bool = False


@dataclass
class RefNode:
    name: str
    labels: dict
    allocatable: dict
    taints: tuple = ()
    cordoned: bool = False
    images: dict = field(default_factory=dict)
    pods: list = field(default_factory=list)


def requirement_holds(requirement, labels):
    present, value = requirement.key in labels, labels.get(requirement.key)
    if requirement.operator == "In":
        return present and value in requirement.values
    if requirement.operator == "NotIn":
        return not (present and value in requirement.values)
    if requirement.operator == "Exists":
        return present
    if requirement.operator == "DoesNotExist":
        return not present
    try:
        have, bound = int(value), int(requirement.values[0])
    except (TypeError, ValueError, IndexError):
        return False
    return have > bound if requirement.operator == "Gt" else have < bound


def selector_matches(selector, labels):
    if selector is None:
        return False
    return all(requirement_holds(item, labels) for item in selector.requirements)


def tolerated(tolerations, taint):
    for item in tolerations:
        if item.effect and item.effect != taint.effect:
            continue
        if item.operator == "Exists" and not item.key:
            return True
        if item.key == taint.key and (item.operator == "Exists" or item.value == taint.value):
            return True
    return False


def term_matches_node(term, node):
    if not term.expressions and not term.fields:
        return False
    fields = {"metadata.name": node.name}
    return all(requirement_holds(item, node.labels) for item in term.expressions) and all(
        requirement_holds(item, fields) for item in term.fields
    )


def required_affinity_holds(template, node):
    if any(node.labels.get(key) != value for key, value in template.node_selector):
        return False
    if template.node_required is None:
        return True
    return any(term_matches_node(term, node) for term in template.node_required)


def term_matches_pod(term, pod):
    return pod.namespace in term.namespaces and selector_matches(term.selector, pod.template.labels)


class Reference:
    """Judges one pod on nodes in the given order."""

    def __init__(self, nodes):
        self.nodes = nodes

    # Filters.

    def rejection(self, pod, node):
        """Return (plugin, unresolvable) of the first filter that says no, or None."""
        template = pod.template
        unschedulable = type(
            "T", (), {"key": "node.kubernetes.io/unschedulable", "value": "", "effect": "NoSchedule"}
        )
        if node.cordoned and not tolerated(template.tolerations, unschedulable):
            return "NodeUnschedulable"
        if any(
            taint.effect in ("NoSchedule", "NoExecute") and not tolerated(template.tolerations, taint)
            for taint in node.taints
        ):
            return "TaintToleration"
        if not required_affinity_holds(template, node):
            return "NodeAffinity"
        taken = [port for other in node.pods for port in other.template.host_ports]
        for address, protocol, port in template.host_ports:
            for other in taken:
                if (protocol, port) == other[1:] and (
                    address == other[0] or "0.0.0.0" in (address, other[0])
                ):
                    return "NodePorts"
        if len(node.pods) + 1 > node.allocatable["pods"]:
            return "NodeResourcesFit"
        for name, amount in template.requests.items():
            used = sum(other.template.requests.get(name, 0) for other in node.pods)
            if used + amount > node.allocatable.get(name, 0):
                return "NodeResourcesFit"
        if not self.spread_holds(pod, node):
            return "PodTopologySpread"
        if not self.pod_affinity_holds(pod, node):
            return "InterPodAffinity"
        return None

    def _eligible(self, pod, constraint, node, keys):
        if any(key not in node.labels for key in keys):
            return False
        if constraint.honor_affinity and not required_affinity_holds(pod.template, node):
            return False
        return not (
            constraint.honor_taints
            and any(
                taint.effect in ("NoSchedule", "NoExecute") and not tolerated(pod.template.tolerations, taint)
                for taint in node.taints
            )
        )

    @staticmethod
    def _matching(pod, constraint, node):
        return sum(
            other.namespace == pod.namespace
            and not other.deleting
            and selector_matches(constraint.selector, other.template.labels)
            for other in node.pods
        )

    def spread_holds(self, pod, node):
        hard = [item for item in pod.template.spread if item.hard]
        keys = [item.topology_key for item in hard]
        if any(key not in node.labels for key in keys):
            return not keys
        for item in hard:
            counts = {}
            for other in self.nodes:
                if self._eligible(pod, item, other, keys):
                    domain = other.labels[item.topology_key]
                    counts[domain] = counts.get(domain, 0) + self._matching(pod, item, other)
            lowest = min(counts.values(), default=2**31 - 1)
            if counts and len(counts) < item.min_domains:
                lowest = 0
            itself = int(selector_matches(item.selector, pod.template.labels))
            if counts.get(node.labels[item.topology_key], 0) + itself - lowest > item.max_skew:
                return False
        return True

    def _near(self, node, key):
        """All pods in the node's domain of a key."""
        return [
            other
            for peer in self.nodes
            if key in node.labels and peer.labels.get(key) == node.labels[key]
            for other in peer.pods
        ]

    def pod_affinity_holds(self, pod, node):
        template = pod.template
        required = template.affinity_required

        def matches_all(other):
            return all(term_matches_pod(term, other) for term in required)

        if required:
            if any(term.topology_key not in node.labels for term in required):
                return False
            near = all(any(map(matches_all, self._near(node, term.topology_key))) for term in required)
            anywhere = any(
                matches_all(other)
                for term in required
                for peer in self.nodes
                if term.topology_key in peer.labels
                for other in peer.pods
            )
            if not near and (anywhere or not matches_all(pod)):
                return False
        for term in template.anti_required:
            if any(term_matches_pod(term, other) for other in self._near(node, term.topology_key)):
                return False
        for peer in self.nodes:
            for other in peer.pods:
                for term in other.template.anti_required:
                    key = term.topology_key
                    if (
                        term_matches_pod(term, pod)
                        and key in peer.labels
                        and peer.labels[key] == node.labels.get(key)
                    ):
                        return False
        return True

    # Scores, weighted, over the feasible nodes.

    def scores(self, pod, feasible):
        parts = {
            "NodeResourcesFit": [self.least(pod, node) for node in feasible],
            "NodeResourcesBalancedAllocation": [self.balanced(pod, node) for node in feasible],
            "ImageLocality": [self.locality(pod, node) for node in feasible],
            "TaintToleration": [3 * value for value in self.taints(pod, feasible)],
            "NodeAffinity": [2 * value for value in self.preference(pod, feasible)],
            "PodTopologySpread": [2 * value for value in self.spread(pod, feasible)],
            "InterPodAffinity": [2 * value for value in self.pod_preference(pod, feasible)],
        }
        return {
            node.name: {name: values[at] for name, values in parts.items()}
            for at, node in enumerate(feasible)
        }

    @staticmethod
    def _requested(pod, node, name, *, scored):
        def of(template):
            if not scored:
                return template.requests.get(name, 0)
            return template.nonzero_cpu if name == "cpu" else template.nonzero_memory

        return sum(of(other.template) for other in node.pods) + of(pod.template)

    def least(self, pod, node):
        values = []
        for name in ("cpu", "memory"):
            capacity = node.allocatable.get(name, 0)
            if capacity:
                asked = self._requested(pod, node, name, scored=True)
                values.append(0 if asked > capacity else (capacity - asked) * 100 // capacity)
        return sum(values) // len(values) if values else 0

    def balanced(self, pod, node):
        if not pod.template.requests.get("cpu") and not pod.template.requests.get("memory"):
            return 0
        fractions = []
        for name in ("cpu", "memory"):
            capacity = node.allocatable.get(name, 0)
            if capacity:
                fractions.append(min(1.0, self._requested(pod, node, name, scored=False) / capacity))
        deviation = abs((fractions[0] - fractions[1]) / 2) if len(fractions) == 2 else 0.0
        return int((1 - deviation) * 100)

    def locality(self, pod, node):
        images = [name if ":" in name else f"{name}:latest" for name in pod.template.images]
        total = 0
        for image in images:
            if image in node.images:
                holders = sum(image in peer.images for peer in self.nodes)
                total += int(node.images[image] * (holders / len(self.nodes)))
        low, high = 23 * MIB, 1000 * MIB * max(len(images), 1)
        return int(100 * Fraction(min(max(total, low), high) - low, high - low))

    @staticmethod
    def taints(pod, feasible):
        raw = [
            sum(
                taint.effect == "PreferNoSchedule" and not tolerated(pod.template.tolerations, taint)
                for taint in node.taints
            )
            for node in feasible
        ]
        return [100 - 100 * value // max(raw) if max(raw) else 100 for value in raw]

    @staticmethod
    def preference(pod, feasible):
        raw = [
            sum(item.weight for item in pod.template.node_preferred if term_matches_node(item.term, node))
            for node in feasible
        ]
        return [100 * value // max(raw) if max(raw) else 0 for value in raw]

    def spread(self, pod, feasible):
        constraints, default = [item for item in pod.template.spread if not item.hard], False
        if not pod.template.spread and pod.default_selector is not None:
            default = True
            make = lambda skew, key: type(
                "C",
                (),
                {
                    "max_skew": skew,
                    "topology_key": key,
                    "selector": pod.default_selector,
                    "honor_affinity": True,
                    "honor_taints": False,
                },
            )
            constraints = [make(3, HOSTNAME), make(5, ZONE)]
        if not constraints:
            return [0] * len(feasible)
        keys = [] if default else [item.topology_key for item in constraints]
        scored = [node for node in feasible if all(key in node.labels for key in keys)]
        raw = {}
        for node in scored:
            total = 0.0
            for item in constraints:
                key = item.topology_key
                if key not in node.labels:
                    continue
                if key == HOSTNAME:
                    size, count = len(scored), self._matching(pod, item, node)
                else:
                    size = len({peer.labels.get(key) for peer in scored})
                    count = sum(
                        self._matching(pod, item, peer)
                        for peer in self.nodes
                        if peer.labels.get(key) == node.labels[key] and self._eligible(pod, item, peer, keys)
                    )
                total += count * math.log(size + 2) + (item.max_skew - 1)
            raw[node.name] = math.floor(total + 0.5)
        if not raw:
            return [0] * len(feasible)
        high, low = max(raw.values()), min(raw.values())
        return [
            0 if node.name not in raw else 100 * (high + low - raw[node.name]) // high if high else 100
            for node in feasible
        ]

    def pod_preference(self, pod, feasible):
        raw = []
        for node in feasible:
            total = 0
            for sign, items in ((1, pod.template.affinity_preferred), (-1, pod.template.anti_preferred)):
                for item in items:
                    near = self._near(node, item.term.topology_key)
                    total += sign * item.weight * sum(term_matches_pod(item.term, other) for other in near)
            for peer in self.nodes:
                for other in peer.pods:
                    theirs = [(term, 1) for term in other.template.affinity_required]
                    theirs += [(item.term, item.weight) for item in other.template.affinity_preferred]
                    theirs += [(item.term, -item.weight) for item in other.template.anti_preferred]
                    for term, weight in theirs:
                        key = term.topology_key
                        if (
                            term_matches_pod(term, pod)
                            and key in peer.labels
                            and peer.labels[key] == node.labels.get(key)
                        ):
                            total += weight
            raw.append(total)
        low, high = min(raw), max(raw)
        return [int(100 * ((value - low) / (high - low))) if high > low else 0 for value in raw]


@pytest.fixture(scope="session")
def reference():
    """Return the slow scheduler's parts."""
    return Reference, RefNode, RefPod


class Maker:
    """Random manifests, small enough that every rule comes up often."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def node(self, number, rich):
        pick = self.random
        labels = {}
        if pick.random() < 0.9:
            labels[ZONE] = f"zone-{pick.randrange(3)}"
        if rich:
            labels["disk"] = pick.choice(["ssd", "hdd"])
            labels["rank"] = str(pick.randrange(5))
        room = {"cpu": f"{pick.choice([1000, 1500, 2000, 4000])}m", "memory": f"{pick.choice([1, 2, 4])}Gi"}
        room["pods"] = str(pick.choice([3, 6, 110]))
        if pick.random() < 0.3:
            room["nvidia.com/gpu"] = str(pick.randrange(3))
        taints = []
        if rich and pick.random() < 0.3:
            effect = pick.choice(["NoSchedule", "PreferNoSchedule"])
            taints.append({"key": "team", "value": pick.choice(["a", "b"]), "effect": effect})
        images = [{"names": ["big:1"], "sizeBytes": 600 * MIB}] if rich and pick.random() < 0.4 else []
        return {
            "kind": "Node",
            "metadata": {"name": f"node-{number}", "labels": labels},
            "spec": {"taints": taints, "unschedulable": rich and pick.random() < 0.1},
            "status": {"allocatable": room, "images": images},
        }

    def pod(self, number, rich):
        pick = self.random
        requests = {}
        if pick.random() < 0.85:
            requests["cpu"] = f"{pick.choice([50, 100, 250, 500, 900])}m"
        if pick.random() < 0.85:
            requests["memory"] = f"{pick.choice([64, 128, 300, 700])}Mi"
        if pick.random() < 0.15:
            requests["nvidia.com/gpu"] = "1"
        labels = {"app": pick.choice(["web", "db", "cache"]), "tier": pick.choice(["front", "back"])}
        spec = {
            "containers": [
                {"name": "c", "image": pick.choice(["big:1", "small"]), "resources": {"requests": requests}}
            ]
        }
        if rich:
            self._enrich(spec)
        return {
            "kind": "Pod",
            "metadata": {
                "name": f"pod-{number}",
                "namespace": pick.choice(["default", "other"]),
                "labels": labels,
            },
            "spec": spec,
        }

    def _selector(self):
        pick = self.random
        if pick.random() < 0.7:
            return {"matchLabels": {"app": pick.choice(["web", "db", "cache"])}}
        return {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["front"]}]}

    def _term(self):
        pick = self.random
        term = {"topologyKey": pick.choice([ZONE, HOSTNAME]), "labelSelector": self._selector()}
        if pick.random() < 0.2:
            term["namespaces"] = ["default", "other"]
        return term

    def _enrich(self, spec):
        pick, affinity = self.random, {}
        if pick.random() < 0.2:
            spec["nodeSelector"] = {"disk": pick.choice(["ssd", "hdd"])}
        if pick.random() < 0.3:
            expression = {"key": "rank", "operator": pick.choice(["Gt", "Lt"]), "values": ["2"]}
            weighted = [{"weight": pick.randrange(1, 100), "preference": {"matchExpressions": [expression]}}]
            affinity["nodeAffinity"] = {"preferredDuringSchedulingIgnoredDuringExecution": weighted}
        if pick.random() < 0.4:
            spec["tolerations"] = [{"key": "team", "operator": "Equal", "value": "a"}]
        for name in ("podAffinity", "podAntiAffinity"):
            kinds = {}
            if pick.random() < 0.15:
                kinds["requiredDuringSchedulingIgnoredDuringExecution"] = [self._term()]
            if pick.random() < 0.2:
                weighted = [{"weight": pick.randrange(1, 100), "podAffinityTerm": self._term()}]
                kinds["preferredDuringSchedulingIgnoredDuringExecution"] = weighted
            if kinds:
                affinity[name] = kinds
        if affinity:
            spec["affinity"] = affinity
        if pick.random() < 0.35:
            spec["topologySpreadConstraints"] = [
                {
                    "maxSkew": pick.randrange(1, 3),
                    "topologyKey": pick.choice([ZONE, HOSTNAME]),
                    "whenUnsatisfiable": pick.choice(["DoNotSchedule", "ScheduleAnyway"]),
                    "labelSelector": self._selector(),
                    "nodeTaintsPolicy": pick.choice(["Honor", "Ignore"]),
                    "minDomains": 1,
                }
                for _ in range(pick.randrange(1, 3))
            ]
        if pick.random() < 0.1:
            spec["containers"][0]["ports"] = [{"hostPort": pick.choice([80, 443])}]


@pytest.fixture(scope="session")
def maker():
    """Return the maker of random manifests."""
    return Maker
