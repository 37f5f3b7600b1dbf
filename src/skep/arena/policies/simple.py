"""Policies without memory: noop, simple, the three that repeat one action, and random."""

import random

from skep.arena.actions import NOOP
from skep.arena.policies.base import Decision, Situation


def noop(situation: Situation) -> Decision:  # noqa: ARG001 - the seam's signature
    """Do nothing."""
    return Decision(NOOP, "always")


def simple_policy(situation: Situation) -> Decision:
    """More CPU when pods are pending, else nothing: the baseline that smarter ones must beat."""
    if situation.observation.pending > 0:
        return Decision("bump_cpu_small", f"{situation.observation.pending} pending")
    return Decision(NOOP, "nothing is pending")


def bump_cpu(situation: Situation) -> Decision:
    """More CPU until the goal."""
    return _until_goal(situation, "bump_cpu_small")


def bump_mem(situation: Situation) -> Decision:
    """More memory until the goal."""
    return _until_goal(situation, "bump_mem_small")


def scale_replicas(situation: Situation) -> Decision:
    """One replica more or less, towards the target."""
    gap = situation.target - situation.resources.replicas
    if gap > 0:
        return Decision("scale_up_replicas", f"{gap} below the target")
    if gap < 0:
        return Decision("scale_down_replicas", f"{-gap} above the target")
    return Decision(NOOP, "as many as wanted")


def _until_goal(situation: Situation, action: str) -> Decision:
    if situation.observation.is_goal(situation.target):
        return Decision(NOOP, "at the goal")
    return Decision(action, "not at the goal")


class RandomPolicy:
    """Any action that would do something, each as likely."""

    name = "random"

    def __init__(self) -> None:
        self._random = random.Random(0)  # noqa: S311 - a seeded choice, not a secret

    def start(self, seed: int) -> None:
        """Draw from this seed on."""
        self._random = random.Random(seed)  # noqa: S311 - a seeded choice, not a secret

    def decide(self, situation: Situation) -> Decision:
        """Draw one."""
        mask = situation.mask()
        allowed = [action for action in situation.actions if mask[action]]
        return Decision(self._random.choice(allowed), f"one of {len(allowed)}")
