"""A policy that `skep arena train` learned: the network's best action among those that do anything."""

import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from skep.arena.actions import NOOP
from skep.arena.network import Network
from skep.arena.policies.base import Decision, Outlook, Situation
from skep.arena.variants import FEATURES, features_of
from skep.errors.arena import PolicyFailed


class LearnedPolicy:
    """Reads the file once; deciding is a few small matrix products."""

    name = "dqn"

    def __init__(self, path: str) -> None:
        try:
            with np.load(Path(path), allow_pickle=False) as stored:
                about: dict[str, Any] = msgspec.json.decode(stored["about"].tobytes())
                weights = [stored[f"w{number}"] for number in range(len(stored.files) - 1)]
        except (OSError, KeyError, ValueError, zipfile.BadZipFile, msgspec.DecodeError) as error:
            raise PolicyFailed(
                f"{path}: no learned policy: {error}; `skep arena train {path}` makes one", policy=self.name
            ) from error
        if tuple(about["features"]) != FEATURES:
            raise PolicyFailed(f"{path} was trained on other features; train it again", policy=self.name)
        self._actions: list[str] = about["actions"]
        self._network = Network(weights)

    def start(self, seed: int) -> None:
        """Nothing is remembered, and nothing is random."""

    def decide(self, situation: Situation) -> Decision:
        """Return the action with the highest value."""
        if situation.observation.is_goal(situation.target):
            return Decision(NOOP, "at the goal")
        outlook = Outlook(observation=situation.observation, resources=situation.resources, reward=0.0)
        values = self._network.forward(np.array([features_of(outlook, situation.target)]))[0]
        mask = situation.mask()
        ranked = sorted(zip(values.tolist(), self._actions, strict=True), reverse=True)
        for value, action in ranked:
            if mask.get(action):
                return Decision(action, f"value {value:.3f}")
        raise PolicyFailed("none of the learned actions is offered here", policy=self.name)
