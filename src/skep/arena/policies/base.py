"""The seam of a policy: a situation goes in, a decision comes out."""

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from skep.arena.observation import Observation
from skep.arena.workload import Resources


class Decision(msgspec.Struct, frozen=True):
    """The action that a policy chose, and why, in a few words."""

    action: str
    reason: str = ""


class Outlook(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What would be seen after some actions: the observation, what the workload asks for, the reward."""

    observation: Observation
    resources: Resources
    reward: float


Lookahead = Callable[[tuple[str, ...]], Outlook]
"""Simulates these actions on a fork of the cluster, one after the other, before they are chosen."""


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy may know when it decides.

    `mask` tells which actions would do anything (it is computed when asked for). `lookahead` is None where the
    driver cannot fork its cluster. `step` counts from 0 in an episode of at most `steps_max`.
    """

    observation: Observation
    resources: Resources
    target: int
    state: tuple[float, ...]
    step: int
    steps_max: int
    seed: int
    actions: tuple[str, ...]
    mask: Callable[[], Mapping[str, bool]]
    lookahead: Lookahead | None = None
    namespace: str = ""
    deployment: str = ""


class Policy(Protocol):
    """Decides. One object serves one episode after the other, never two at once."""

    name: str

    def start(self, seed: int) -> None:
        """Begin an episode: forget the one before; every random choice follows from `seed`."""
        ...

    def decide(self, situation: Situation) -> Decision:
        """Choose one of `situation.actions`. Raises: PolicyFailed."""
        ...


class FunctionPolicy:
    """A policy that is a plain function of the situation."""

    def __init__(self, name: str, function: Callable[[Situation], Decision]) -> None:
        self.name = name
        self._function = function

    def start(self, seed: int) -> None:
        """Nothing is remembered, so nothing is to forget."""

    def decide(self, situation: Situation) -> Decision:
        """Ask the function."""
        return self._function(situation)
