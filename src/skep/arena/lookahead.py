"""Looking ahead for policies that plan: what would be seen after some actions, on forks of the embedded cluster."""

from skep.arena.driver import Driver, SimulationSpec
from skep.arena.embedded_driver import EmbeddedDriver
from skep.arena.outlooks import Looking
from skep.arena.policies.base import Lookahead, Outlook
from skep.arena.rewards import RewardFunction
from skep.arena.safeguards import Safeguards
from skep.arena.variants import VariantGraph
from skep.arena.workload import Resources


def make_lookahead(
    driver: Driver,
    spec: SimulationSpec,
    target: int,
    reward: RewardFunction,
    safeguards: Safeguards,
    reference: Resources | None,
    actions: tuple[str, ...],
) -> Lookahead | None:
    """Return a look-ahead from this step on; None where the driver cannot fork its cluster."""
    if not isinstance(driver, EmbeddedDriver):
        return None
    graph: list[VariantGraph] = []

    def look(path: tuple[str, ...]) -> Outlook:
        if not graph:
            graph.append(
                VariantGraph(
                    spec.trace,
                    Looking(
                        spec.workload,
                        target,
                        driver.simulator(spec),
                        reward=reward,
                        safeguards=safeguards,
                        reference=reference,
                    ),
                    actions=actions,
                )
            )
        variant = graph[0].root
        for action in path:
            variant = graph[0].after(variant, actions.index(action))
        return graph[0].outlook(variant)

    return look
