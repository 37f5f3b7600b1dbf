"""`gymnasium.make("skep/Arena-v0")`: an episode of the arena as a gymnasium environment.

Importing this module registers it, and its vector form for `gymnasium.make_vec`; gymnasium 1 knows no other way (plug-ins
by entry point left it with 1.0). `gymnasium.make("skep.arena.gym:skep/Arena-v0")` imports and makes in one.

An observation is the float vector `skep.arena.variants.FEATURES`; an action is an index into `actions`. The reward of
a step is that of what is seen *after* the action. `info` holds the action mask, the counts and the scenario. An
episode terminates at the goal and is truncated at `steps_max` or when the return falls to the floor.
"""

from typing import Any, Final

import gymnasium
import numpy as np
import numpy.typing as npt

from skep.arena.actions import BUILT_IN
from skep.arena.episode import RETURN_FLOOR
from skep.arena.observation import CPU_SCALE_M, MEMORY_SCALE_MIB, MIB, PENDING_SCALE
from skep.arena.outlooks import LookPlan
from skep.arena.safeguards import Safeguards
from skep.arena.scenarios import Scenario, select_scenarios
from skep.arena.variants import FEATURES, VariantGraph

ENVIRONMENT_ID: Final = "skep/Arena-v0"
SURGE: Final = 2
"""No rolling update of Kubernetes' defaults has more than this times the replicas at once."""
Features = npt.NDArray[np.float32]


def observation_space(scenarios: tuple[Scenario, ...], safeguards: Safeguards) -> gymnasium.spaces.Box:
    """Return the box that every observation of these scenarios lies in."""
    from skep.arena.workload import find_resources

    starts = [find_resources(one.trace, one.workload) for one in scenarios]
    containers = max(one.plans[0].containers for one in scenarios)
    pods = SURGE * max(safeguards.replicas_max, *(start.replicas for start in starts))
    target = max(one.target for one in scenarios)
    high = {
        "cpu": max(containers * safeguards.cpu_m_max, *(start.cpu_m for start in starts)) / CPU_SCALE_M,
        "memory": max(containers * safeguards.memory_bytes_max, *(start.memory_bytes for start in starts))
        / (MEMORY_SCALE_MIB * MIB),
        "pending": pods / PENDING_SCALE,
        "gap": target / PENDING_SCALE,
    }
    low = np.zeros(len(FEATURES), dtype=np.float32)
    low[FEATURES.index("gap")] = -pods / PENDING_SCALE
    return gymnasium.spaces.Box(low, np.array([high.get(name, 1.0) for name in FEATURES], dtype=np.float32))


def graph_of(plan: LookPlan, number: int, actions: tuple[str, ...]) -> VariantGraph:
    """Return the graph that the episodes of a plan's scenario move on, its root simulated."""
    graph = VariantGraph(plan.scenarios[number].trace, plan.looking(number), actions=actions)
    graph.outlook(graph.root)
    return graph


class ArenaEnv(gymnasium.Env[Features, np.int64]):
    """One environment. `reset(options={"scenario": name})` chooses a scenario, else the seed does."""

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012 - gymnasium's own attribute

    def __init__(
        self,
        scenarios: str = "training",
        reward: str = "shaped",
        actions: tuple[str, ...] = BUILT_IN,
        *,
        cluster_seed: int = 0,
        return_floor: float = RETURN_FLOOR,
        render_mode: str | None = None,
    ) -> None:
        self.scenarios = select_scenarios(scenarios)
        self.actions = tuple(actions)
        self.render_mode = render_mode
        self._reward, self._cluster_seed, self._return_floor = reward, cluster_seed, return_floor
        self._safeguards = Safeguards()
        self._graphs: dict[str, VariantGraph] = {}
        self.action_space = gymnasium.spaces.Discrete(len(self.actions))
        self.observation_space = observation_space(self.scenarios, self._safeguards)  # type: ignore[assignment]
        self._scenario = self.scenarios[0]
        self._graph: VariantGraph | None = None
        self._variant = self._steps = 0
        self._return = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Features, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        wanted = (options or {}).get("scenario")
        if wanted is None:
            self._scenario = self.scenarios[int(self.np_random.integers(len(self.scenarios)))]
        else:
            (self._scenario,) = select_scenarios(wanted)
        name = self._scenario.name
        if name not in self._graphs:
            plan = LookPlan(
                scenarios=(self._scenario,),
                reward=self._reward,
                safeguards=self._safeguards,
                cluster_seed=self._cluster_seed,
            )
            self._graphs[name] = graph_of(plan, 0, self.actions)
        self._graph = self._graphs[name]
        self._variant, self._steps, self._return = self._graph.root, 0, 0.0
        return self._features(), self._info()

    def step(self, action: np.int64) -> tuple[Features, float, bool, bool, dict[str, Any]]:
        """Act, and see what the simulation shows then."""
        graph = self._graph
        if graph is None:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        if graph.is_full():
            (self._variant,) = graph.begin_anew(np.array([self._variant]))
        self._variant = graph.after(self._variant, int(action))
        outlook = graph.outlook(self._variant)
        self._steps += 1
        self._return += outlook.reward
        is_goal = bool(graph.is_goal[self._variant])
        is_over = self._steps >= self._scenario.steps_max or self._return <= self._return_floor
        return self._features(), outlook.reward, is_goal, is_over and not is_goal, self._info()

    def render(self) -> str | None:
        """Return the state in one line, in mode `ansi`."""
        if self.render_mode != "ansi" or self._graph is None:
            return None
        seen = self._graph.outlook(self._variant).observation
        return f"{self._scenario.name} step {self._steps}: {seen.ready} ready, {seen.pending} pending, {seen.total} in all, {self._scenario.target} wanted"

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Return the mask as sb3-contrib's MaskablePPO asks for it."""
        assert self._graph is not None
        return self._graph.mask(self._variant).astype(bool)

    def _features(self) -> Features:
        assert self._graph is not None
        self._graph.outlook(self._variant)
        features: Features = np.array(self._graph.features[self._variant])
        return features

    def _info(self) -> dict[str, Any]:
        assert self._graph is not None
        seen = self._graph.outlook(self._variant).observation
        return {
            "scenario": self._scenario.name,
            "ready": seen.ready,
            "pending": seen.pending,
            "total": seen.total,
            "action_mask": self._graph.mask(self._variant),
            "is_goal": bool(self._graph.is_goal[self._variant]),
        }


if ENVIRONMENT_ID not in gymnasium.registry:
    gymnasium.register(
        ENVIRONMENT_ID,
        entry_point="skep.arena.gym:ArenaEnv",
        vector_entry_point="skep.arena.vector:ArenaVectorEnv",
    )
