"""The oracle: searches the fewest actions that lead to the goal, each tried on a fork of the cluster.

1. Breadth first over what the workload asks for, so the first goal found is the nearest. Actions commute (they add
   to a few numbers), so states are told apart by those numbers and each is simulated once, `NEAR_MAX` at most.
2. Far goals: nothing may get better until several numbers are right at once. So go to the corners, where each
   number is pushed as far as it goes (or left), find one that is a goal, and take back every action that it does
   not need. What is left is the fewest along each number.
3. Where neither finds a goal, the path to the best reward seen.
"""

import itertools
from collections import deque
from typing import Final

from skep.arena.actions import NOOP
from skep.arena.policies.base import Decision, Lookahead, Outlook, Situation
from skep.errors.arena import PolicyFailed

NEAR_MAX: Final = 400
REPEATS_MAX: Final = 128
OPPOSITES: Final = (
    ("reduce_cpu_small", "bump_cpu_small"),
    ("reduce_mem_small", "bump_mem_small"),
    ("scale_down_replicas", "scale_up_replicas"),
)
Path = tuple[str, ...]


class OraclePolicy:
    """Plans once, at an episode's first decision, and again where the world did not follow the plan."""

    name = "oracle"

    def __init__(self, simulations_max: int = NEAR_MAX) -> None:
        self._near_max = int(simulations_max)
        self._plan: deque[str] = deque()
        self._expected: Outlook | None = None

    def start(self, seed: int) -> None:  # noqa: ARG002 - nothing here is random
        """Forget the plan."""
        self._plan.clear()
        self._expected = None

    def decide(self, situation: Situation) -> Decision:
        """Follow the plan, or make one. Raises: PolicyFailed where the driver cannot fork its cluster."""
        look = situation.lookahead
        if look is None:
            raise PolicyFailed(
                "the oracle needs a driver that can fork its cluster; `--driver embedded` can",
                policy=self.name,
            )
        if situation.observation.is_goal(situation.target):
            self._plan.clear()
            return Decision(NOOP, "at the goal")
        if not self._plan or self._expected is None or self._expected.resources != situation.resources:
            depth_max = max(1, situation.steps_max - situation.step)
            self._plan = deque(_search(look, situation, depth_max, self._near_max))
        if not self._plan:
            return Decision(NOOP, "no sequence of actions is better")
        action = self._plan.popleft()
        self._expected = look((action,))
        return Decision(action, f"{len(self._plan)} more to the best that was found")


def _search(look: Lookahead, situation: Situation, depth_max: int, near_max: int) -> Path:
    near, best = _nearest(look, situation, depth_max, near_max)
    if near is not None:
        return near
    far = _corner(look, situation)
    return far if far is not None and len(far) <= depth_max else best


def _nearest(
    look: Lookahead, situation: Situation, depth_max: int, near_max: int
) -> tuple[Path | None, Path]:
    """Return the nearest goal within so many states, if any, and the path to the best reward seen."""
    start = look(())
    best: tuple[float, Path] = (start.reward, ())
    queue: deque[Path] = deque([()])
    seen = {start.resources}
    while queue and len(seen) <= near_max:
        path = queue.popleft()
        if len(path) >= depth_max:
            continue
        for action in situation.actions:
            longer = (*path, action)
            outlook = look(longer)
            if outlook.resources in seen:
                continue
            seen.add(outlook.resources)
            if outlook.observation.is_goal(situation.target):
                return longer, longer
            if outlook.reward > best[0]:
                best = (outlook.reward, longer)
            queue.append(longer)
    return None, best[1]


def _corner(look: Lookahead, situation: Situation) -> Path | None:
    """Return the fewest actions to a goal in a corner, None where no corner is one."""
    gap = situation.target - situation.resources.replicas
    scaling = {("scale_up_replicas" if gap > 0 else "scale_down_replicas"): abs(gap)} if gap else {}
    choices = [[{}, *({action: REPEATS_MAX} for action in pair)] for pair in OPPOSITES[:2]]
    found: list[Path] = []
    for parts in itertools.product(*choices):
        wanted = {**scaling, **parts[0], **parts[1]}
        if not set(wanted) <= set(situation.actions):
            continue
        counts = {action: _reach(look, action, most) for action, most in wanted.items()}
        if _is_goal(look, situation, counts):
            found.append(_path(_fewest(look, situation, counts)))
    return min(found, key=len, default=None)


def _reach(look: Lookahead, action: str, most: int) -> int:
    """Return how often an action does anything, at most `most` times."""
    before = look(()).resources
    for count in range(1, most + 1):
        after = look((action,) * count).resources
        if after == before:
            return count - 1
        before = after
    return most


def _fewest(look: Lookahead, situation: Situation, counts: dict[str, int]) -> dict[str, int]:
    """Take back actions while the goal stays, by halving: fewer of the same is the smaller change."""
    kept = dict(counts)
    for action in counts:
        low, high = 0, kept[action]
        while low < high:
            middle = (low + high) // 2
            if _is_goal(look, situation, {**kept, action: middle}):
                high = middle
            else:
                low = middle + 1
        kept[action] = high
    return kept


def _is_goal(look: Lookahead, situation: Situation, counts: dict[str, int]) -> bool:
    return look(_path(counts)).observation.is_goal(situation.target)


def _path(counts: dict[str, int]) -> Path:
    return tuple(action for action, count in counts.items() for _ in range(count))
