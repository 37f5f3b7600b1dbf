"""From a list of pods to an observation: what is ready, what is pending and why. Pure."""

import re
from typing import Any, Final

from skep.arena.observation import Observation

_SHORT: Final = re.compile(r"\d+ (Insufficient [\w/-]+(?:\.[\w/-]+)*|Too many pods|node\(s\) [^,.]+)")


def observe_pods(pods: list[dict[str, Any]]) -> Observation:
    """Count pods that are not on their way out; Succeeded and Failed ones are done, not part of `total`."""
    ready = pending = total = restarts = killed = 0
    reasons: dict[str, int] = {}
    for pod in pods:
        status = pod.get("status") or {}
        phase = status.get("phase", "Pending")
        if (pod.get("metadata") or {}).get("deletionTimestamp") or phase in ("Succeeded", "Failed"):
            continue
        total += 1
        conditions = {one.get("type"): one for one in status.get("conditions") or ()}
        ready += (conditions.get("Ready") or {}).get("status") == "True"
        if phase == "Pending":
            pending += 1
            for reason in _why(conditions.get("PodScheduled") or {}):
                reasons[reason] = reasons.get(reason, 0) + 1
        for container in status.get("containerStatuses") or ():
            restarts += int(container.get("restartCount") or 0)
            last = ((container.get("lastState") or {}).get("terminated") or {}).get("reason")
            killed += last == "OOMKilled"
    return Observation(
        ready=ready, pending=pending, total=total, restarts=restarts, oom_killed=killed, reasons=reasons
    )


def _why(condition: dict[str, Any]) -> list[str]:
    """Return the reasons of a scheduler's message: `0/3 nodes are available: 2 Insufficient cpu, 1 Too many pods. …`."""
    if condition.get("status") != "False":
        return []
    return sorted(set(_SHORT.findall(condition.get("message") or ""))) or [
        condition.get("reason") or "Unschedulable"
    ]
