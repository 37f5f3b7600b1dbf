"""The steps of what a hive does to a pool, by name: for logs, and for the kill matrix that interrupts each of them."""

import os
import signal
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final

import structlog

log = structlog.get_logger(__name__)

KILL_VARIABLE = "SKEP_TEST_KILL_AT"
"""`STEP` or `STEP:N`: SIGKILL ourselves when the step is reached (for the N-th time). For tests only.

`@PATH` reads that from a file at each step, so that a hive that runs already can be armed; no file is unarmed.
"""


class Step(StrEnum):
    """In the order in which they happen."""

    DECLARATION_STORED = "declare.stored"
    WISH_STORED = "preload.wish_stored"
    ENGINE_HERE = "preload.engine_here"
    MODEL_HERE = "preload.model_here"
    FITS = "preload.fits"
    SPAWN_RECORDED = "start.spawn_recorded"
    SPAWNED = "start.spawned"
    PID_RECORDED = "start.pid_recorded"
    REPORTED = "start.reported"
    LOADED = "start.loaded"
    PROVED = "start.proved"
    HANDOFF_WRITTEN = "start.handoff_written"
    SERVING = "start.serving"
    DRAIN_STORED = "drain.wish_stored"
    HANDOFF_REMOVED = "stop.handoff_removed"
    DRAIN_ASKED = "drain.asked"
    DRAINED = "drain.jobs_ended"
    STOPPED = "stop.process_gone"
    MEMORY_BACK = "stop.memory_back"
    SPAWN_FORGOTTEN = "stop.spawn_forgotten"
    DRAIN_DONE = "drain.done"
    STAGED = "reload.staged"
    BESIDE = "reload.new_ready_beside"
    RELOAD_STORED = "reload.stored"
    OLD_GONE = "reload.old_gone"
    RELOAD_DONE = "reload.done"


OPERATIONS: Final[Mapping[str, tuple[Step, ...]]] = MappingProxyType(
    {
        "declare": (Step.DECLARATION_STORED,),
        "preload": (
            Step.WISH_STORED, Step.ENGINE_HERE, Step.MODEL_HERE, Step.FITS, Step.SPAWN_RECORDED, Step.SPAWNED, Step.PID_RECORDED,
            Step.REPORTED, Step.LOADED, Step.PROVED, Step.HANDOFF_WRITTEN, Step.SERVING,
        ),
        "adopt": (Step.WISH_STORED, Step.PROVED, Step.HANDOFF_WRITTEN, Step.SERVING),
        "drain": (
            Step.DRAIN_STORED, Step.HANDOFF_REMOVED, Step.DRAIN_ASKED, Step.DRAINED, Step.STOPPED, Step.MEMORY_BACK,
            Step.SPAWN_FORGOTTEN, Step.DRAIN_DONE,
        ),
        "reload beside": (
            Step.ENGINE_HERE, Step.MODEL_HERE, Step.STAGED, Step.SPAWN_RECORDED, Step.SPAWNED, Step.PID_RECORDED, Step.REPORTED,
            Step.LOADED, Step.PROVED, Step.HANDOFF_WRITTEN, Step.SERVING, Step.BESIDE, Step.RELOAD_STORED, Step.HANDOFF_REMOVED,
            Step.DRAIN_ASKED, Step.DRAINED, Step.STOPPED, Step.MEMORY_BACK, Step.SPAWN_FORGOTTEN, Step.OLD_GONE, Step.RELOAD_DONE,
        ),
        "reload after": (
            Step.ENGINE_HERE, Step.MODEL_HERE, Step.STAGED, Step.HANDOFF_REMOVED, Step.DRAIN_ASKED, Step.DRAINED, Step.STOPPED,
            Step.MEMORY_BACK, Step.SPAWN_FORGOTTEN, Step.SPAWN_RECORDED, Step.SPAWNED, Step.PID_RECORDED, Step.REPORTED,
            Step.LOADED, Step.PROVED, Step.HANDOFF_WRITTEN, Step.SERVING, Step.BESIDE, Step.RELOAD_STORED, Step.OLD_GONE,
            Step.RELOAD_DONE,
        ),
    }
)  # fmt: skip
"""The steps of each operation, in the order in which a pool of one replica passes them; a test holds the code to it."""

_reached: Counter[str] = Counter()


def reached(step: Step, **facts: object) -> None:
    """Say that a step is done; a test may have armed it."""
    log.debug("step", step=step.value, **facts)
    armed, _, count = _armed().partition(":")
    if armed == step.value:
        _reached[step] += 1
        if _reached[step] == int(count or 1):
            os.kill(os.getpid(), signal.SIGKILL)


def _armed() -> str:
    armed = os.environ.get(KILL_VARIABLE, "")
    if not armed.startswith("@"):
        return armed
    try:
        return Path(armed[1:]).read_text(encoding="ascii")
    except FileNotFoundError:
        return ""
