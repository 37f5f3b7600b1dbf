"""What a step is given and what it gives back, and how its ending is put into its record."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

from skep.arena.actions import BUILT_IN, ActionInfo
from skep.arena.hooks import Hook
from skep.arena.observation import Observation
from skep.arena.policies.base import Decision
from skep.arena.records import StepRecord
from skep.arena.rewards import Reward
from skep.arena.safeguards import Safeguards
from skep.arena.trace.trace import Trace
from skep.arena.workload import Resources
from skep.errors.arena import StepCancelled

STEPS_MAX: Final = 30
UNKNOWN: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "trace_out": None,
        "observation": None,
        "state": None,
        "action": None,
        "decision_reason": "",
        "action_info": None,
        "reward": None,
        "reward_terms": {},
        "sim_duration_s": None,
    }
)
"""What a record holds of a step that did not come so far."""


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    """A step that succeeded. `trace_out` is the trace for the next step; `exit_value` is 0."""

    record: StepRecord
    observation: Observation
    resources: Resources
    decision: Decision
    action_info: ActionInfo
    reward: Reward
    trace_out: Trace
    is_goal: bool
    exit_value: int = 0


class StepOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a step needs beside what it is about. `workspace` holds `runs/` and `.tmp/`; `run_id` None is derived."""

    workspace: Path = Path()
    hooks: tuple[Hook, ...] = ()
    safeguards: Safeguards = Safeguards()
    actions: tuple[str, ...] = BUILT_IN
    reference: Resources | None = None
    kind: str | None = None
    container: str | None = None
    steps_max: int = STEPS_MAX
    run_id: str | None = None
    step: int = 0
    is_trace_saved: bool = True


def told(error: BaseException | None) -> dict[str, Any] | None:
    """Return an error as a record holds it."""
    if error is None:
        return None
    return {"type": type(error).__name__, "code": getattr(error, "code", ""), "message": str(error)}


def status_of(error: BaseException | None) -> str:
    """Name what became of a step: `ok`, `failed`, or `cancelled` (asked to stop, interrupted)."""
    if error is None:
        return "ok"
    is_failure = isinstance(error, Exception) and not isinstance(error, StepCancelled)
    return "failed" if is_failure else "cancelled"
