"""The heuristic: reads why pods are pending or die, and does the one thing that mends it.

Intuition, in the order that it asks:
1. Too many pods: take one away; it also frees room for the others.
2. Containers are killed for lack of memory: ask for more memory.
3. Pods do not fit: they ask for more than a node has left. Asking for *more*, as the baseline does, makes it worse;
   ask for less of what the scheduler says is short, of both in turns where both are.
4. Too few pods: add one.
5. Pods that are merely starting (nothing is short): wait.
"""

from skep.arena.actions import NOOP
from skep.arena.policies.base import Decision, Situation

SHORT_OF = {"Insufficient cpu": "reduce_cpu_small", "Insufficient memory": "reduce_mem_small"}


def heuristic(situation: Situation) -> Decision:
    """Mend what is broken, one small step at a time."""
    seen, mask = situation.observation, situation.mask()
    if situation.resources.replicas > situation.target:
        return Decision(
            "scale_down_replicas", f"{situation.resources.replicas} replicas, {situation.target} wanted"
        )
    if seen.oom_killed and mask.get("bump_mem_small"):
        return Decision("bump_mem_small", f"{seen.oom_killed} containers were killed for lack of memory")
    for reason, action in _by_need(situation):
        if mask.get(action):
            return Decision(action, f"{seen.reasons[reason]} pending: {reason}")
    if situation.resources.replicas < situation.target:
        return Decision(
            "scale_up_replicas", f"{situation.resources.replicas} replicas, {situation.target} wanted"
        )
    if seen.is_goal(situation.target):
        return Decision(NOOP, "at the goal")
    return Decision(
        NOOP, "nothing that an action mends: " + (", ".join(sorted(seen.reasons)) or "pods are starting")
    )


def _by_need(situation: Situation) -> list[tuple[str, str]]:
    """Return what is short, the scarcest first; of two that are equally scarce, in turns."""
    short = [
        (reason, action) for reason, action in SHORT_OF.items() if situation.observation.reasons.get(reason)
    ]
    turn = situation.step % 2
    return sorted(
        short, key=lambda one: (-situation.observation.reasons[one[0]], list(SHORT_OF).index(one[0]) != turn)
    )
