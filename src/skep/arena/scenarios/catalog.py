"""The catalogue: fifteen scenarios to learn and tune on, six that are held out for the last word."""

from pathlib import Path
from typing import Any, Final

from skep.arena.nodes import NodePlan
from skep.arena.scenarios.files import is_file, load_scenario, scenarios_of
from skep.arena.scenarios.model import Scenario
from skep.arena.trace.generate import WorkloadPlan
from skep.arena.workload import Resources
from skep.errors.arena import UnknownName

MIB: Final = 1 << 20
USED, USED_AFTER = "arena.skep/memory-used", "arena.skep/memory-used-after-s"


def _web(**given: Any) -> WorkloadPlan:
    return WorkloadPlan(**{"name": "web", "cpu": "500m", "memory": "256Mi", **given})


def _needs(cpu_m: int, memory_mib: int, replicas: int) -> Resources:
    return Resources(cpu_m=cpu_m, memory_bytes=memory_mib * MIB, replicas=replicas)


def _hungry(used: str, **given: Any) -> WorkloadPlan:
    return _web(annotations={USED: used, USED_AFTER: "2"}, **given)


_SMALL: Final = (NodePlan(count=2, cpu="2", memory="4Gi"),)
_WIDE: Final = (NodePlan(count=4, cpu="4", memory="8Gi"),)
_FLEET: Final = (NodePlan(count=10, cpu="4", memory="16Gi"),)

TRAINING: Final = (
    Scenario(
        name="all-ready",
        about="everything runs: the right thing is nothing",
        plans=(_web(replicas=3),),
        nodes=_SMALL,
        target=3,
        reference=_needs(500, 256, 3),
    ),
    Scenario(
        name="cpu-slightly-over",
        about="three pods ask for 1.5 CPU where two fit",
        plans=(_web(replicas=3, cpu="1500m"),),
        nodes=_SMALL,
        target=3,
        reference=_needs(1000, 256, 3),
    ),
    Scenario(
        name="cpu-far-over",
        about="no pod fits on any node: 7.5 CPU on nodes of 4",
        plans=(_web(replicas=4, cpu="7500m"),),
        nodes=_WIDE,
        target=4,
        reference=_needs(4000, 256, 4),
    ),
    Scenario(
        name="memory-over",
        about="three pods of 3 GiB on two nodes of 4",
        plans=(_web(replicas=3, memory="3Gi"),),
        nodes=_SMALL,
        target=3,
        reference=_needs(500, 2048, 3),
    ),
    Scenario(
        name="cpu-and-memory-over",
        about="both are short at once",
        plans=(_web(replicas=4, cpu="2500m", memory="5Gi"),),
        nodes=_SMALL,
        target=4,
        reference=_needs(1000, 2048, 4),
    ),
    Scenario(
        name="too-few",
        about="two replicas where five are wanted",
        plans=(_web(replicas=2),),
        nodes=_SMALL,
        target=5,
        reference=_needs(500, 256, 5),
    ),
    Scenario(
        name="too-many",
        about="six replicas where three are wanted",
        plans=(_web(replicas=6),),
        nodes=_WIDE,
        target=3,
        reference=_needs(500, 256, 3),
    ),
    Scenario(
        name="too-many-to-fit",
        about="seven replicas are wanted to be four, and only six fit",
        plans=(_web(replicas=7, cpu="600m"),),
        nodes=_SMALL,
        target=4,
        reference=_needs(600, 256, 4),
    ),
    Scenario(
        name="killed-for-memory",
        about="containers use 300 MiB with a limit of 128",
        plans=(_hungry("300Mi", replicas=3, memory="128Mi", memory_limit="128Mi"),),
        nodes=_SMALL,
        target=3,
        reference=_needs(500, 384, 3),
    ),
    Scenario(
        name="killed-and-too-few",
        about="containers are killed, and one replica is missing",
        plans=(_hungry("700Mi", replicas=2, memory="256Mi", memory_limit="256Mi"),),
        nodes=_SMALL,
        target=3,
        reference=_needs(500, 768, 3),
    ),
    Scenario(
        name="too-few-and-over",
        about="one replica is missing, and what there is asks for too much",
        plans=(_web(replicas=3, cpu="1800m"),),
        nodes=_SMALL,
        target=4,
        reference=_needs(800, 256, 4),
    ),
    Scenario(
        name="stateful-over",
        about="a StatefulSet waits for its first pod, which never fits",
        plans=(_web(kind="StatefulSet", replicas=3, cpu="3"),),
        nodes=_SMALL,
        target=3,
        reference=_needs(1000, 256, 3),
    ),
    Scenario(
        name="sidecars-over",
        about="two containers share a pod and both ask for too much",
        plans=(_web(replicas=4, cpu="1500m", containers=2),),
        nodes=(NodePlan(count=4, cpu="2", memory="4Gi"),),
        target=4,
        reference=_needs(2000, 512, 4),
    ),
    Scenario(
        name="neighbours",
        about="two other workloads take half of every node",
        plans=(
            _web(replicas=4, cpu="1500m"),
            _web(name="db", replicas=2, cpu="1"),
            _web(name="cache", replicas=2),
        ),
        nodes=(NodePlan(count=2, cpu="4", memory="8Gi"),),
        target=4,
        reference=_needs(1000, 256, 4),
    ),
    Scenario(
        name="twenty-pods-over",
        about="twenty pods of 2.5 CPU on ten nodes of 4",
        plans=(_web(replicas=20, cpu="2500m"),),
        nodes=_FLEET,
        target=20,
        reference=_needs(2000, 256, 20),
    ),
)
HELD_OUT: Final = (
    Scenario(
        name="held-out-far-over-with-neighbours",
        about="3.5 CPU beside a neighbour that fills a third",
        plans=(
            _web(replicas=3, cpu="3500m", memory="1Gi"),
            _web(name="db", replicas=3, cpu="1", memory="1Gi"),
        ),
        nodes=(NodePlan(count=3, cpu="3", memory="4Gi"),),
        target=3,
        reference=_needs(2000, 1024, 3),
        is_held_out=True,
    ),
    Scenario(
        name="held-out-memory-deep",
        about="containers need five times what they may have",
        plans=(_hungry("1300Mi", replicas=2, memory="256Mi", memory_limit="256Mi"),),
        nodes=_WIDE,
        target=2,
        reference=_needs(500, 1536, 2),
        is_held_out=True,
    ),
    Scenario(
        name="held-out-too-many-and-over",
        about="too many replicas that each ask for too much",
        plans=(_web(replicas=7, cpu="3"),),
        nodes=_SMALL,
        target=4,
        reference=_needs(1000, 256, 4),
        is_held_out=True,
    ),
    Scenario(
        name="held-out-tainted",
        about="one of three nodes takes no such pods",
        plans=(_web(replicas=4, cpu="1800m"),),
        nodes=(
            NodePlan(count=2, cpu="2", memory="4Gi"),
            NodePlan(
                count=1,
                cpu="8",
                memory="16Gi",
                name="gpu",
                taints=({"key": "gpu", "value": "yes", "effect": "NoSchedule"},),
            ),
        ),
        target=4,
        reference=_needs(800, 256, 4),
        is_held_out=True,
    ),
    Scenario(
        name="held-out-job",
        about="a Job whose six pods ask for more than the nodes have",
        plans=(_web(name="train", kind="Job", replicas=6, cpu="1500m"),),
        nodes=(NodePlan(count=3, cpu="2", memory="4Gi"),),
        target=6,
        reference=_needs(1000, 256, 6),
        is_held_out=True,
    ),
    Scenario(
        name="held-out-replica-set-memory",
        about="a ReplicaSet of eight that are each 3 GiB on four nodes of 4",
        plans=(_web(kind="ReplicaSet", replicas=8, memory="3Gi"),),
        nodes=(NodePlan(count=4, cpu="4", memory="4Gi"),),
        target=8,
        reference=_needs(500, 2048, 8),
        is_held_out=True,
    ),
)
SCENARIOS: Final = (*TRAINING, *HELD_OUT)


def find_scenario(name: str) -> Scenario:
    """Return a built-in scenario by name, or a file's by its path. Raises: UnknownName, InvalidConfig."""
    if is_file(name):
        return load_scenario(name)
    for scenario in SCENARIOS:
        if scenario.name == name:
            return scenario
    known = tuple(scenario.name for scenario in SCENARIOS)
    raise UnknownName(f"no scenario {name!r}; there are {', '.join(known)}, and your own *.toml", known=known)


def select_scenarios(wanted: str) -> tuple[Scenario, ...]:
    """Return `all`, `training`, `held-out`, a folder's, or a comma-separated list's. Raises: as `find_scenario`."""
    groups = {"all": SCENARIOS, "training": TRAINING, "held-out": HELD_OUT}
    if wanted in groups:
        return groups[wanted]
    if Path(wanted).is_dir():
        return scenarios_of(Path(wanted))
    return tuple(find_scenario(name.strip()) for name in wanted.split(",") if name.strip())
