"""Pure predicates of labels, taints and node affinity. No other file compares a label."""

from collections.abc import Mapping, Sequence

from skep.arena.objects import (
    Effect,
    NodeTerm,
    PodTemplate,
    PodTerm,
    Requirement,
    Selector,
    Taint,
    Toleration,
)


def _integer(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _compared(requirement: Requirement, value: str | None) -> bool:
    if value is None or len(requirement.values) != 1:
        return False
    have, bound = _integer(value), _integer(requirement.values[0])
    if have is None or bound is None:
        return False
    return have > bound if requirement.operator == "Gt" else have < bound


def holds(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    """True when the labels meet one requirement; a label that is absent meets NotIn and DoesNotExist."""
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value is not None and value in requirement.values
        case "NotIn":
            return value is None or value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    return _compared(requirement, value)


def selects(selector: Selector | None, labels: Mapping[str, str]) -> bool:
    """True when all requirements hold; None selects nothing."""
    return selector is not None and all(holds(requirement, labels) for requirement in selector.requirements)


def term_holds(term: NodeTerm, name: str, labels: Mapping[str, str]) -> bool:
    """True when a node meets a node-selector term; an empty term meets nothing."""
    if not term.expressions and not term.fields:
        return False
    return all(holds(item, labels) for item in term.expressions) and all(
        holds(item, {"metadata.name": name}) for item in term.fields
    )


def node_matches(template: PodTemplate, name: str, labels: Mapping[str, str]) -> bool:
    """True when a node meets the pod's node selector and its required node affinity."""
    for key, value in template.node_selector:
        if labels.get(key) != value:
            return False
    terms = template.node_required
    return terms is None or any(term_holds(term, name, labels) for term in terms)


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """True when this toleration bears this taint."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    return bool(toleration.key) and toleration.value == taint.value


def is_tolerated(tolerations: Sequence[Toleration], taint: Taint) -> bool:
    """True when any toleration bears the taint."""
    return any(tolerates(toleration, taint) for toleration in tolerations)


def untolerated(tolerations: Sequence[Toleration], taints: Sequence[Taint]) -> Taint | None:
    """Return the first taint that keeps the pod off (NoSchedule, NoExecute), or None."""
    for taint in taints:
        if taint.effect != Effect.PREFER_NO_SCHEDULE and not is_tolerated(tolerations, taint):
            return taint
    return None


def preferred_untolerated(tolerations: Sequence[Toleration], taints: Sequence[Taint]) -> int:
    """Return how many PreferNoSchedule taints the pod does not bear."""
    return sum(
        taint.effect == Effect.PREFER_NO_SCHEDULE and not is_tolerated(tolerations, taint) for taint in taints
    )


def pod_term_matches(
    term: PodTerm, namespace: str, labels: Mapping[str, str], namespaces: Mapping[str, Mapping[str, str]]
) -> bool:
    """True when a pod of this namespace with these labels is one that the term speaks of."""
    if namespace not in term.namespaces:
        named = term.namespace_selector
        if named is None or not selects(
            named, namespaces.get(namespace, {"kubernetes.io/metadata.name": namespace})
        ):
            return False
    return selects(term.selector, labels)
