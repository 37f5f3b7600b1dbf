"""Many environments at once: one array step moves them all along the same variant graphs.

What a variant's simulation shows is known after its first visit, so a step of n environments is a few array
operations, and a simulation for each variant that nobody saw before, shared between `processes`. Environments that
ended are reset by the next step (gymnasium's `NEXT_STEP`); their action is ignored then and their reward is 0.
"""

from typing import Any, Final

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from skep.arena.actions import BUILT_IN
from skep.arena.episode import RETURN_FLOOR
from skep.arena.gym import graph_of, observation_space
from skep.arena.outlooks import Lookers, LookPlan
from skep.arena.safeguards import Safeguards
from skep.arena.scenarios import select_scenarios
from skep.arena.variants import FEATURES, VariantGraph

ENVIRONMENTS_MAX: Final = 65_536
Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]


class ArenaVectorEnv(gymnasium.vector.VectorEnv[npt.NDArray[np.float32], Numbers, npt.NDArray[np.float64]]):
    """`num_envs` episodes side by side. Arguments as for `ArenaEnv`; the same results on any number of `processes`."""

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012 - gymnasium's own

    def __init__(
        self,
        num_envs: int = 1,
        scenarios: str = "training",
        reward: str = "shaped",
        actions: tuple[str, ...] = BUILT_IN,
        *,
        cluster_seed: int = 0,
        return_floor: float = RETURN_FLOOR,
        render_mode: str | None = None,
        processes: int = 1,
    ) -> None:
        super().__init__()
        if not 0 < num_envs <= ENVIRONMENTS_MAX:
            raise ValueError(f"num_envs: 1 to {ENVIRONMENTS_MAX}, not {num_envs}")
        self.num_envs, self.render_mode = num_envs, render_mode
        self.scenarios, self.actions = select_scenarios(scenarios), tuple(actions)
        safeguards = Safeguards()
        self.single_action_space = gymnasium.spaces.Discrete(len(self.actions))
        self.single_observation_space = observation_space(self.scenarios, safeguards)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._plan = LookPlan(
            scenarios=self.scenarios, reward=reward, safeguards=safeguards, cluster_seed=cluster_seed
        )
        self._lookers = Lookers(self._plan, processes)
        self._graphs: dict[int, VariantGraph] = {}
        self._floor = return_floor
        self._bounds = np.array([one.steps_max for one in self.scenarios], dtype=np.int64)
        self._scenario = np.zeros(num_envs, dtype=np.int64)
        self._variant = np.zeros(num_envs, dtype=np.int64)
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._returns = np.zeros(num_envs, dtype=np.float64)
        self._is_over = np.ones(num_envs, dtype=bool)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Begin `num_envs` episodes, or those of `options["reset_mask"]`; `options["scenario"]` chooses one for all."""
        options = options or {}
        super().reset(seed=seed if isinstance(seed, int) or seed is None else seed[0], options=options)
        chosen = None
        if "scenario" in options:
            chosen = [one.name for one in self.scenarios].index(options["scenario"])
        mask: Bools = np.asarray(options.get("reset_mask", np.ones(self.num_envs, dtype=bool)), dtype=bool)
        self._begin(mask, chosen)
        return self._features(), self._info()

    def step(  # type: ignore[override]
        self, actions: Numbers
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], Bools, Bools, dict[str, Any]]:
        """Act in every environment; those that ended begin anew instead."""
        actions = np.asarray(actions, dtype=np.int64)
        resetting = self._is_over.copy()
        acting = ~resetting
        rewards = np.zeros(self.num_envs, dtype=np.float64)
        goals = np.zeros(self.num_envs, dtype=bool)
        moved = self._move(acting, actions)
        self._look(moved)
        for number, here in moved:
            graph, found = self._graphs[number], self._variant[here]
            rewards[here] = graph.rewards[found]
            goals[here] = graph.is_goal[found]
        self._steps[acting] += 1
        self._returns += rewards
        is_bound = (self._steps >= self._bounds[self._scenario]) | (self._returns <= self._floor)
        truncated = acting & is_bound & ~goals
        self._is_over = goals | truncated
        if resetting.any():
            self._begin(resetting, None)
        return self._features(), rewards, goals, truncated, self._info()

    def masks(self) -> npt.NDArray[np.int8]:
        """Return each environment's action mask."""
        found = np.empty((self.num_envs, len(self.actions)), dtype=np.int8)
        for number in np.unique(self._scenario):
            here = np.flatnonzero(self._scenario == number)
            found[here] = self._graphs[int(number)].masks(self._variant[here])
        return found

    def close_extras(self, **kwargs: Any) -> None:  # noqa: ARG002 - gymnasium's signature
        """End the processes; gymnasium's `close` calls this once."""
        self._lookers.close()

    def _move(self, acting: Bools, actions: Numbers) -> list[tuple[int, Numbers]]:
        """Move the environments that act; return the scenarios' numbers, and who is in which."""
        moved = []
        for number in np.unique(self._scenario[acting]):
            here = np.flatnonzero(acting & (self._scenario == number))
            graph = self._graphs[int(number)]
            if graph.is_full():
                everyone = np.flatnonzero(self._scenario == number)
                self._variant[everyone] = graph.begin_anew(self._variant[everyone])
            self._variant[here] = graph.follow(self._variant[here], actions[here])
            moved.append((int(number), here))
        return moved

    def _look(self, moved: list[tuple[int, Numbers]]) -> None:
        """Simulate what nobody saw before, all scenarios' in one batch."""
        unseen = [
            (number, variant)
            for number, here in moved
            for variant in self._graphs[number].unseen(self._variant[here])
        ]
        outlooks = self._lookers.look([(number, self._graphs[number].trace(one)) for number, one in unseen])
        for (number, variant), outlook in zip(unseen, outlooks, strict=True):
            self._graphs[number].learn(variant, outlook)

    def _begin(self, mask: Bools, chosen: int | None) -> None:
        count = int(mask.sum())
        drawn = (
            self.np_random.integers(len(self.scenarios), size=count)
            if chosen is None
            else np.full(count, chosen)
        )
        self._scenario[mask] = drawn
        for number in np.unique(drawn):
            if int(number) not in self._graphs:
                self._graphs[int(number)] = graph_of(self._plan, int(number), self.actions)
            self._variant[mask & (self._scenario == number)] = self._graphs[int(number)].root
        self._steps[mask] = 0
        self._returns[mask] = 0.0
        self._is_over[mask] = False

    def _features(self) -> npt.NDArray[np.float32]:
        features = np.empty((self.num_envs, len(FEATURES)), dtype=np.float32)
        for number in np.unique(self._scenario):
            here = np.flatnonzero(self._scenario == number)
            features[here] = self._graphs[int(number)].features[self._variant[here]]
        return features

    def _info(self) -> dict[str, Any]:
        return {"scenario": self._scenario.copy(), "_scenario": np.ones(self.num_envs, dtype=bool)}
