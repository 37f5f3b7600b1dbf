"""Deep Q-learning on the vector environment: double Q, a replay buffer, ε-greedy over the actions that do anything.

The same options and seed give the same file, to the byte. Sizes and rates start from the ones that the field's
small-cluster experiments used (24 and 48 hidden units, RMSprop 10⁻³, γ 0.97).
"""

import io
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from skep.arena.actions import BUILT_IN
from skep.arena.network import Network
from skep.arena.variants import FEATURES
from skep.arena.vector import ArenaVectorEnv
from skep.errors import InvalidInput

HIDDEN: Final = (24, 48)
TELL_EVERY: Final = 50
Progress = Callable[[int, str], None]


class TrainOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to learn on, for how long, and how. `exploring` is the share of steps in which ε falls to `epsilon_end`."""

    scenarios: str = "training"
    reward: str = "shaped"
    steps: int = 60_000
    environments: int = 16
    seed: int = 0
    rate: float = 1e-3
    gamma: float = 0.97
    epsilon_end: float = 0.05
    exploring: float = 0.5
    buffer: int = 20_000
    batch: int = 64
    sync_every: int = 250
    window: int = 200


class TrainOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How the training went: episodes, the share of the last `window` that were solved, and the curve of that."""

    episodes: int
    steps: int
    updates: int
    solve_rate_last: float
    window: int
    solve_rates: tuple[float, ...]


class _Buffer:
    """The last transitions, in a ring."""

    def __init__(self, size: int) -> None:
        self.features = np.zeros((size, len(FEATURES)))
        self.after = np.zeros((size, len(FEATURES)))
        self.actions = np.zeros(size, dtype=np.int64)
        self.rewards = np.zeros(size)
        self.is_last = np.zeros(size, dtype=bool)
        self.masks = np.zeros((size, len(BUILT_IN)), dtype=bool)
        self.length = self._next = 0

    def add(self, *columns: npt.NDArray[np.generic]) -> None:
        """Add rows: features, actions, rewards, features after, whether it was the last, masks after."""
        count = len(columns[0])
        at = (self._next + np.arange(count)) % len(self.actions)
        targets = (self.features, self.actions, self.rewards, self.after, self.is_last, self.masks)
        for target, column in zip(targets, columns, strict=True):
            target[at] = column
        self._next = int((self._next + count) % len(self.actions))
        self.length = min(len(self.actions), self.length + count)


def train_policy(
    options: TrainOptions, target: Path, on_progress: Progress | None = None, *, processes: int = 1
) -> TrainOutcome:
    """Train, and write the network: the same bytes on any number of processes.

    Raises: UnknownName for scenarios or rewards that do not exist, InvalidInput where nothing can be written.
    """
    learner = _Learner(options, processes)
    _check_writable(target)
    try:
        outcome = learner.run(on_progress)
    finally:
        learner.close()
    _save(learner.network, options, target)
    return outcome


class _Learner:
    """One training under way."""

    def __init__(self, options: TrainOptions, processes: int) -> None:
        self._options = options
        self._rng = np.random.default_rng(options.seed)
        self._env = ArenaVectorEnv(
            options.environments, options.scenarios, options.reward, processes=processes
        )
        self.network = Network.seeded((len(FEATURES), *HIDDEN, len(BUILT_IN)), self._rng)
        self._target = self.network.copied()
        self._buffer = _Buffer(options.buffer)
        self._recent: deque[bool] = deque(maxlen=options.window)
        self._episodes = self._updates = 0
        self._rates: list[float] = []

    def close(self) -> None:
        """End the environments' processes."""
        self._env.close()

    def run(self, tell: Progress | None) -> TrainOutcome:
        """Train to the end, telling how far it came now and then."""
        options, env = self._options, self._env
        features, _ = env.reset(seed=options.seed)
        masks = env.masks().astype(bool)
        was_over = np.zeros(options.environments, dtype=bool)
        done = rounds = 0
        while done < options.steps:
            actions = self._choose(features, masks, done)
            after, rewards, goals, bounds, _ = env.step(actions)
            masks_after = env.masks().astype(bool)
            kept = ~was_over
            columns = (features, actions, rewards, after, goals, masks_after)
            self._buffer.add(*(column[kept] for column in columns))
            was_over = goals | bounds
            self._recent.extend(bool(one) for one in goals[was_over])
            self._episodes += int(was_over.sum())
            features, masks = after, masks_after
            done += options.environments
            rounds += 1
            self._learn()
            if rounds % TELL_EVERY == 0:
                self._rates.append(round(self._solve_rate(), 4))
                if tell is not None:
                    tell(
                        min(done, options.steps),
                        f"{self._episodes} episodes, {self._solve_rate():.0%} solved",
                    )
        return TrainOutcome(
            episodes=self._episodes,
            steps=done,
            updates=self._updates,
            solve_rate_last=self._solve_rate(),
            window=len(self._recent),
            solve_rates=tuple(self._rates),
        )

    def _solve_rate(self) -> float:
        return sum(self._recent) / len(self._recent) if self._recent else 0.0

    def _choose(
        self, features: npt.NDArray[np.float32], masks: npt.NDArray[np.bool_], done: int
    ) -> npt.NDArray[np.int64]:
        options = self._options
        progress = min(1.0, done / max(1.0, options.exploring * options.steps))
        epsilon = 1.0 + (options.epsilon_end - 1.0) * progress
        values = np.where(masks, self.network.forward(features.astype(np.float64)), -np.inf)
        best = values.argmax(axis=1)
        noise = np.where(masks, self._rng.random(masks.shape), -1.0)
        chosen: npt.NDArray[np.int64] = np.where(
            self._rng.random(len(best)) < epsilon, noise.argmax(axis=1), best
        ).astype(np.int64)
        return chosen

    def _learn(self) -> None:
        options, buffer = self._options, self._buffer
        if buffer.length < options.batch * 4:
            return
        at = self._rng.integers(buffer.length, size=options.batch)
        after = buffer.after[at]
        chosen = np.where(buffer.masks[at], self.network.forward(after), -np.inf).argmax(axis=1)
        value = self._target.forward(after)[np.arange(len(at)), chosen]
        wanted = buffer.rewards[at] + options.gamma * np.where(buffer.is_last[at], 0.0, value)
        self.network.learn(buffer.features[at], buffer.actions[at], wanted, options.rate)
        self._updates += 1
        if self._updates % options.sync_every == 0:
            self._target = self.network.copied()


def _check_writable(target: Path) -> None:
    """Refuse before hours of training what could not be kept after them."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{target}: cannot be written: {error.strerror}", path=str(target)) from error
    if target.is_dir() or not os.access(target.parent, os.W_OK):
        raise InvalidInput(f"{target}: cannot be written: name a file in a folder of yours", path=str(target))


def _save(network: Network, options: TrainOptions, target: Path) -> None:
    stream = io.BytesIO()
    about = msgspec.json.encode(
        {"generated_by": "skep arena train", "features": FEATURES, "actions": BUILT_IN, "options": options}
    )
    arrays = {f"w{number}": weights for number, weights in enumerate(network.weights)}
    np.savez(stream, about=np.frombuffer(about, dtype=np.uint8), **arrays)  # type: ignore[arg-type]
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(stream.getvalue())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise InvalidInput(f"{target}: cannot be written: {error.strerror}", path=str(target)) from error
