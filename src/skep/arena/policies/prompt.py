"""What the model is told: its task, and the state of the cluster in words."""

from typing import Final

from skep.arena.policies.base import Situation

MIB: Final = 1 << 20
SYSTEM: Final = """You operate one workload on a Kubernetes cluster. Each step you choose one action; then the cluster is
simulated again and you see the result. The goal: exactly the wanted number of pods, all ready, none pending, with as
few steps and as little CPU and memory as possible. Pods that stay pending for "Insufficient cpu" or "Insufficient
memory" ask for more than a node has left: ask for less. Containers killed for lack of memory need more.
Answer with one JSON object: {"action": "<one of the actions>", "reason": "<a few words>"}"""


def describe(situation: Situation, allowed: list[str]) -> str:
    """Return the user's message for a situation."""
    seen, wants = situation.observation, situation.resources
    reasons = ", ".join(f"{reason} ({count})" for reason, count in sorted(seen.reasons.items())) or "none"
    nodes = "; ".join(
        f"{one.name} cpu {one.cpu:.0%} memory {one.memory:.0%} pods {one.pods}" for one in seen.nodes
    )
    lines = [
        f"Workload {situation.namespace}/{situation.deployment}, step {situation.step + 1} of at most {situation.steps_max}.",
        f"Pods: {seen.ready} ready, {seen.pending} pending, {seen.total} in all; wanted: {situation.target}.",
        f"Each pod requests {wants.cpu_m}m CPU and {wants.memory_bytes // MIB}Mi memory; replicas set: {wants.replicas}.",
        f"Why pods are pending: {reasons}.",
        f"Containers killed for lack of memory: {seen.oom_killed}; restarts: {seen.restarts}.",
        f"Nodes: {nodes or 'not known'}.",
        f"Actions that would do anything: {', '.join(allowed)}.",
    ]
    return "\n".join(lines)
