"""What a policy may do to a workload: small edits of its manifests, on a copy, with limits kept valid.

    noop                 nothing
    bump_cpu_small       +500m for each container       reduce_cpu_small     −500m, not below 50m
    bump_mem_small       +256Mi for each container      reduce_mem_small     −256Mi, not below 64Mi
    scale_up_replicas    +1                             scale_down_replicas  −1, not below 1

Raising a request above its limit raises the limit to it; a limit is never lowered. More actions can be registered.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from skep.arena.quantity import format_amount
from skep.arena.safeguards import Safeguards
from skep.arena.trace.event import Manifest
from skep.arena.trace.trace import Trace
from skep.arena.workload import (
    WorkloadRef,
    appearances,
    containers_of,
    find_resources,
    replicas_field,
    request_of,
)
from skep.errors.arena import UnknownName

MIB: Final = 1 << 20
NOOP: Final = "noop"

Edit = Callable[[Manifest, str | None], bool]
"""Changes a manifest in place (the container named, or all); tells whether anything changed."""


class ActionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an action: `blocked` by a safeguard, else whether it `changed` the trace; `reason` if not."""

    changed: bool
    blocked: bool = False
    reason: str = ""


def _change_request(resource: str, delta: int, floor: int) -> Edit:
    def edit(manifest: Manifest, container: str | None) -> bool:
        is_changed = False
        for one in containers_of(manifest, container):
            before = request_of(one, resource)
            after = before + delta if delta > 0 else min(before, max(floor, before + delta))
            if after == before:
                continue
            is_changed = True
            resources = one["resources"] = dict(one.get("resources") or {})
            resources["requests"] = {
                **(resources.get("requests") or {}),
                resource: format_amount(resource, after),
            }
            limits = resources.get("limits") or {}
            if resource in limits and request_of({"resources": {"limits": limits}}, resource) < after:
                resources["limits"] = {**limits, resource: format_amount(resource, after)}
        return is_changed

    return edit


def _change_replicas(delta: int) -> Edit:
    def edit(manifest: Manifest, container: str | None) -> bool:  # noqa: ARG001 - replicas are the workload's
        spec = manifest.setdefault("spec", {})
        field = replicas_field(manifest)
        before = spec.get(field, 1)
        before = 1 if before is None else before
        after = before + delta if delta > 0 else min(before, max(1, before + delta))
        if after == before:
            return False
        spec[field] = after
        if manifest["kind"] == "Job" and spec.get("completions") == before:
            spec["completions"] = after
        return True

    return edit


ACTIONS: dict[str, Edit] = {
    NOOP: lambda manifest, container: False,  # noqa: ARG005 - the seam's signature
    "bump_cpu_small": _change_request("cpu", 500, 0),
    "bump_mem_small": _change_request("memory", 256 * MIB, 0),
    "scale_up_replicas": _change_replicas(1),
    "reduce_cpu_small": _change_request("cpu", -500, 50),
    "reduce_mem_small": _change_request("memory", -256 * MIB, 64 * MIB),
    "scale_down_replicas": _change_replicas(-1),
}
BUILT_IN: Final = tuple(ACTIONS)


def register_action(name: str, edit: Edit) -> None:
    """Add an action for every policy of this process; a name that is taken is refused."""
    if name in ACTIONS:
        raise ValueError(f"an action {name!r} exists already")
    ACTIONS[name] = edit


def find_action(name: str) -> Edit:
    """Return an action by name. Raises: UnknownName."""
    try:
        return ACTIONS[name]
    except KeyError:
        raise UnknownName(
            f"no action {name!r}; there are {', '.join(ACTIONS)}", known=tuple(ACTIONS)
        ) from None


def apply_action(
    trace: Trace, workload: WorkloadRef, action: str, safeguards: Safeguards
) -> tuple[Trace, ActionInfo]:
    """Return the trace after an action, everywhere that it applies the workload, and what became of it.

    A blocked or idle action returns the very same trace. Raises: UnknownName, DeploymentNotFound.
    """
    edit = find_action(action)
    if action == NOOP:
        return trace, ActionInfo(changed=False, reason="nothing to do")
    changed = {}
    is_found = False
    for position, event, manifests in appearances(trace, workload):
        is_found = True
        for manifest in manifests:
            before = safeguards.excess(manifest)
            if not edit(manifest, workload.container):
                continue
            if objection := safeguards.objection(before, safeguards.excess(manifest)):
                return trace, ActionInfo(changed=False, blocked=True, reason=objection)
            changed[position] = event
    if not is_found:
        find_resources(trace, workload)
    if not changed:
        return trace, ActionInfo(changed=False, reason="already at the floor")
    return trace.with_events(changed), ActionInfo(changed=True)


class ActionMask(Mapping[str, bool]):
    """Tells for each action whether it would do anything; each is tried when it is first asked about."""

    def __init__(
        self, trace: Trace, workload: WorkloadRef, safeguards: Safeguards, actions: tuple[str, ...] = BUILT_IN
    ) -> None:
        self._subject = (trace, workload)
        self._safeguards, self._actions = safeguards, actions
        self._known: dict[str, bool] = {NOOP: True}

    def __getitem__(self, action: str) -> bool:
        if action not in self._actions:
            raise KeyError(action)
        if action not in self._known:
            self._known[action] = apply_action(*self._subject, action, self._safeguards)[1].changed
        return self._known[action]

    def __iter__(self) -> Iterator[str]:
        return iter(self._actions)

    def __len__(self) -> int:
        return len(self._actions)
