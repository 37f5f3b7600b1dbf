"""The environments: gymnasium's own checker, spaces that are true, and one episode equal in every form."""

import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from skep.arena.actions import BUILT_IN
from skep.arena.embedded_driver import EmbeddedDriver
from skep.arena.episode import run_episode
from skep.arena.gym import ENVIRONMENT_ID, ArenaEnv, graph_of
from skep.arena.outlooks import LookPlan
from skep.arena.policies.base import Decision, FunctionPolicy
from skep.arena.policies.registry import make_policy
from skep.arena.runner import StepOptions
from skep.arena.safeguards import Safeguards
from skep.arena.scenarios import find_scenario
from skep.arena.train import TrainOptions, train_policy
from skep.arena.trial import Trial, run_trial
from skep.arena.vector import ArenaVectorEnv
from skep.errors import InvalidInput
from skep.errors.arena import PolicyFailed, UnknownName

SCENARIO = "cpu-slightly-over"
REDUCE = BUILT_IN.index("reduce_cpu_small")
PLAN = LookPlan(
    scenarios=(find_scenario(SCENARIO),), reward="shaped", safeguards=Safeguards(), cluster_seed=0
)


def test_gymnasium_checker_passes_without_a_warning() -> None:
    env = gymnasium.make(ENVIRONMENT_ID, render_mode="ansi")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
    env.close()


@pytest.mark.parametrize("scenarios", ["training", "held-out", "all"])
def test_every_observation_lies_in_the_space(scenarios: str) -> None:
    env = ArenaVectorEnv(32, scenarios)
    observations, _ = env.reset(seed=1)
    rng = np.random.default_rng(1)
    for _ in range(20):
        assert env.observation_space.contains(observations)
        observations, rewards, *_ = env.step(rng.integers(len(BUILT_IN), size=32))
        assert np.all((rewards >= -1) & (rewards <= 1))


def test_corners_lie_in_the_space() -> None:
    env = ArenaEnv("all")
    for action in ("bump_cpu_small", "bump_mem_small", "scale_up_replicas"):
        env.reset(options={"scenario": "sidecars-over"})
        for _ in range(140):
            observation, *_ = env.step(np.int64(BUILT_IN.index(action)))
            assert env.observation_space.contains(observation)


def test_seed_fixes_the_episode() -> None:
    def rollout(seed: int) -> list[Any]:
        env = ArenaEnv("training")
        seen = [env.reset(seed=seed)[0].tolist()]
        for action in (0, 4, 1, 3, 5, 2, 6):
            observation, reward, goal, over, info = env.step(np.int64(action))
            seen.append((observation.tolist(), reward, goal, over, info["scenario"]))
        return seen

    assert rollout(3) == rollout(3)
    assert {rollout(seed)[1][4] for seed in range(8)} != {rollout(3)[1][4]}


def test_environment_and_runner_see_the_same_episode(tmp_path: Path) -> None:
    actions = ["reduce_cpu_small", "bump_mem_small", "scale_up_replicas", "reduce_cpu_small"]
    scenario = find_scenario("cpu-far-over")
    script = iter([*actions, "noop"])
    with EmbeddedDriver(scenario.nodes) as driver:
        episode = run_episode(
            scenario.trace, "default", "web", 4, policy=FunctionPolicy("script", lambda one: Decision(next(script))), driver=driver,
            options=StepOptions(workspace=tmp_path, steps_max=5, reference=scenario.reference),
        )  # fmt: skip
    env = ArenaEnv(reward="shaped")
    env.reset(options={"scenario": "cpu-far-over"})
    for action, step in zip(actions, episode.steps[1:], strict=True):
        _, reward, _, _, info = env.step(np.int64(BUILT_IN.index(action)))
        assert (info["ready"], info["pending"], info["total"]) == (
            step.observation.ready,
            step.observation.pending,
            step.observation.total,
        )
        assert reward == step.reward.value


def test_goal_terminates_and_bound_truncates() -> None:
    env = ArenaEnv()
    _, info = env.reset(options={"scenario": SCENARIO})
    assert info["action_mask"].dtype == np.int8
    _, reward, terminated, truncated, info = env.step(np.int64(REDUCE))
    assert (reward, terminated, truncated, info["is_goal"]) == (1.0, True, False, True)
    env.reset(options={"scenario": SCENARIO})
    for _ in range(30):
        _, _, terminated, truncated, _ = env.step(np.int64(0))
        assert not terminated
    assert truncated


def test_floor_truncates() -> None:
    env = ArenaEnv(return_floor=-0.2)
    env.reset(options={"scenario": SCENARIO})
    assert [env.step(np.int64(0))[3] for _ in range(2)] == [False, True]


def test_step_before_reset_is_refused() -> None:
    with pytest.raises(gymnasium.error.ResetNeeded):
        ArenaEnv().step(np.int64(0))


def test_render_says_the_state() -> None:
    env = ArenaEnv(render_mode="ansi")
    env.reset(options={"scenario": SCENARIO})
    assert env.render() == "cpu-slightly-over step 0: 2 ready, 1 pending, 3 in all, 3 wanted"


def test_vector_environment_is_registered_and_equals_the_single_one() -> None:
    vector = gymnasium.make_vec(
        ENVIRONMENT_ID, num_envs=4, vectorization_mode="vector_entry_point", scenarios=SCENARIO
    )
    single = ArenaEnv(SCENARIO)
    assert vector.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    batch, _ = vector.reset(seed=0)
    one, _ = single.reset(seed=0)
    assert np.array_equal(batch, np.stack([one] * 4))
    for action in (1, 3, 2, 4):
        batch, rewards, goals, bounds, _ = vector.step(np.full(4, action))
        one, reward, goal, bound, _ = single.step(np.int64(action))
        assert np.array_equal(batch[0], one)
        assert (rewards[0], goals[0], bounds[0]) == (reward, goal, bound)
    vector.close()


def test_ended_environments_are_reset_by_the_next_step() -> None:
    vector = ArenaVectorEnv(2, SCENARIO)
    start, _ = vector.reset(seed=0)
    _, rewards, goals, _, _ = vector.step(np.array([REDUCE, 0]))
    assert goals.tolist() == [True, False]
    batch, rewards, goals, _, _ = vector.step(np.array([REDUCE, REDUCE]))
    assert np.array_equal(batch[0], start[0])
    assert rewards.tolist() == [0.0, 1.0]
    assert goals.tolist() == [False, True]


def test_masks_and_partial_resets() -> None:
    vector = ArenaVectorEnv(3, "training")
    vector.reset(seed=0, options={"scenario": SCENARIO})
    vector.step(np.array([1, 1, 1]))
    before = vector._variant.copy()
    vector.reset(options={"reset_mask": np.array([True, False, False]), "scenario": SCENARIO})
    assert vector._variant[1:].tolist() == before[1:].tolist()
    assert vector._variant[0] != before[0]
    assert vector.masks().shape == (3, len(BUILT_IN))
    with pytest.raises(ValueError, match="num_envs"):
        ArenaVectorEnv(0)


def test_full_graph_begins_anew_and_keeps_what_is_in_use() -> None:
    graph = graph_of(PLAN, 0, BUILT_IN)
    graph._variants_max = 6
    there = graph.root
    for _ in range(5):
        there = graph.after(there, 1)
        graph.outlook(there)
    assert graph.is_full()
    trace = graph.trace(there)
    (moved,) = graph.begin_anew(np.array([there]))
    assert graph.trace(int(moved)) is trace
    assert len(graph) == 2
    assert graph.outlook(graph.root).resources.cpu_m == 1500


def test_variants_are_simulated_once() -> None:
    graph = graph_of(PLAN, 0, BUILT_IN)
    there = graph.after(graph.after(graph.root, 1), BUILT_IN.index("reduce_cpu_small"))
    assert there == graph.root
    graph.outlook(there)
    assert graph.simulations == 1


# Training.


def test_training_learns_and_repeats_itself_to_the_byte(tmp_path: Path) -> None:
    options = TrainOptions(scenarios=SCENARIO, steps=4000, environments=8, seed=1)
    outcome = train_policy(options, tmp_path / "a.npz")
    train_policy(options, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert outcome.solve_rate_last > 0.9
    trial = Trial(SCENARIO, "dqn", 0, options=(("path", str(tmp_path / "a.npz")),))
    assert run_trial(trial).is_solved


def test_learned_policy_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"nothing")
    for name in ("x.npz", "absent.npz"):
        with pytest.raises(PolicyFailed, match="skep arena train"):
            make_policy("dqn", {"path": str(tmp_path / name)})
    with pytest.raises(UnknownName):
        train_policy(TrainOptions(scenarios="none"), tmp_path / "y.npz")


def test_training_is_refused_at_once_where_it_could_not_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for target in (tmp_path, tmp_path / "file" / "x.npz", Path("/proc/none/x.npz")):
        with pytest.raises(InvalidInput, match="cannot be written"):
            train_policy(TrainOptions(scenarios=SCENARIO, steps=10**8), target)
