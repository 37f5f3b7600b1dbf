"""The oracle: searches the fewest actions that lead to the goal, each tried on a fork of the cluster.

Breadth first over what the workload asks for, so the first goal found is the nearest; where none is found within
the budget, the path to the best reward seen. Actions commute (they add to a few numbers), so states are told apart
by those numbers and each is simulated once. With a budget of n it simulates at most n forks for an episode.
"""

from collections import deque
from typing import Final

from skep.arena.actions import NOOP
from skep.arena.policies.base import Decision, Lookahead, Outlook, Situation
from skep.errors.arena import PolicyFailed

SIMULATIONS_MAX: Final = 2000


class OraclePolicy:
    """Plans once, at an episode's first decision, and again where the world did not follow the plan."""

    name = "oracle"

    def __init__(self, simulations_max: int = SIMULATIONS_MAX) -> None:
        self._simulations_max = simulations_max
        self._plan: deque[tuple[str, Outlook]] = deque()
        self._expected: Outlook | None = None

    def start(self, seed: int) -> None:  # noqa: ARG002 - nothing here is random
        """Forget the plan."""
        self._plan.clear()
        self._expected = None

    def decide(self, situation: Situation) -> Decision:
        """Follow the plan, or make one. Raises: PolicyFailed where the driver cannot fork its cluster."""
        if situation.lookahead is None:
            raise PolicyFailed(
                "the oracle needs a driver that can fork its cluster; `--driver embedded` can",
                policy=self.name,
            )
        if situation.observation.is_goal(situation.target):
            self._plan.clear()
            return Decision(NOOP, "at the goal")
        if not self._plan or self._expected is None or self._expected.resources != situation.resources:
            self._plan = deque(self._search(situation, situation.lookahead))
        if not self._plan:
            return Decision(NOOP, "no sequence of actions is better")
        action, self._expected = self._plan.popleft()
        return Decision(action, f"{len(self._plan)} more to the best that was found")

    def _search(self, situation: Situation, lookahead: Lookahead) -> list[tuple[str, Outlook]]:
        start = lookahead(())
        depth_max = max(1, situation.steps_max - situation.step)
        best: tuple[float, list[tuple[str, Outlook]]] = (start.reward, [])
        queue: deque[list[tuple[str, Outlook]]] = deque([[]])
        seen = {start.resources}
        simulations = 0
        while queue:
            path = queue.popleft()
            if len(path) >= depth_max:
                continue
            for action in situation.actions:
                if action == NOOP:
                    continue
                if simulations >= self._simulations_max:
                    return best[1]
                simulations += 1
                outlook = lookahead((*(step for step, _ in path), action))
                if outlook.resources in seen:
                    continue
                seen.add(outlook.resources)
                longer = [*path, (action, outlook)]
                if outlook.observation.is_goal(situation.target):
                    return longer
                if outlook.reward > best[0]:
                    best = (outlook.reward, longer)
                queue.append(longer)
        return best[1]
