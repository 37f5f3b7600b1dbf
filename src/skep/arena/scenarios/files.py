"""Scenarios of your own, as TOML files; what a file may say is what `Scenario` holds.

    about = "three pods ask for 1.5 CPU where two fit"
    target = 3
    reference = {cpu_m = 1000, memory_bytes = 268435456, replicas = 3}
    [[plans]]
    name = "web"
    replicas = 3
    cpu = "1500m"
    [[nodes]]
    count = 2
    cpu = "2"

The first plan is the workload that the policy may change. A scenario's name is its file's path, so that every
process of a sweep finds it.
"""

from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec

from skep.arena.nodes import NodePlan
from skep.arena.scenarios.model import Scenario
from skep.arena.trace.check import check_trace
from skep.arena.trace.generate import WorkloadPlan
from skep.arena.workload import WORKLOAD_KINDS, Resources
from skep.errors import InvalidConfig

SUFFIX: Final = ".toml"
FILES_MAX: Final = 1000


class _File(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What stands in a file."""

    plans: tuple[WorkloadPlan, ...]
    nodes: tuple[NodePlan, ...]
    target: int
    about: str = ""
    reference: Resources | None = None
    duration_s: float = 60.0
    steps_max: int = 30
    is_held_out: bool = False


def is_file(name: str) -> bool:
    """Tell whether a scenario's name is the path of a file."""
    return name.endswith(SUFFIX)


@lru_cache(maxsize=FILES_MAX)
def load_scenario(name: str) -> Scenario:
    """Read a scenario's file. Raises: InvalidConfig (says what is wrong), TraceInvalid (its manifests are)."""
    try:
        given = msgspec.toml.decode(Path(name).read_bytes(), type=_File)
    except OSError as error:
        raise InvalidConfig(f"{name}: no scenario can be read there: {error.strerror}") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidConfig(f"{name}: {error}") from error
    if not given.plans or not given.nodes or given.target < 0 or given.duration_s <= 0 or given.steps_max < 1:
        raise InvalidConfig(
            f"{name}: at least one plan and one node; target, duration_s and steps_max not below 0, 0, 1"
        )
    if unknown := [plan.kind for plan in given.plans if plan.kind not in WORKLOAD_KINDS]:
        raise InvalidConfig(f"{name}: kind {unknown[0]!r}: {', '.join(WORKLOAD_KINDS)}")
    scenario = Scenario(name=name, **msgspec.structs.asdict(given))
    check_trace(scenario.trace)
    return scenario


def scenarios_of(folder: Path) -> tuple[Scenario, ...]:
    """Read every scenario of a folder, sorted by name. Raises: InvalidConfig (also where there is none)."""
    found = sorted(folder.glob(f"*{SUFFIX}"))[:FILES_MAX]
    if not found:
        raise InvalidConfig(f"{folder}: no scenario (*{SUFFIX}) in this folder")
    return tuple(load_scenario(str(path)) for path in found)
