"""The steps of what a hive does to a pool, by name: for logs, and for the kill matrix that interrupts each of them."""

import os
import signal
from collections import Counter
from enum import StrEnum

import structlog

log = structlog.get_logger(__name__)

KILL_VARIABLE = "SKEP_TEST_KILL_AT"
"""`STEP` or `STEP:N`: SIGKILL ourselves when the step is reached (for the N-th time). For tests only."""


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


_reached: Counter[Step] = Counter()


def reached(step: Step, **facts: object) -> None:
    """Say that a step is done; a test may have armed it."""
    log.debug("step", step=step.value, **facts)
    armed, _, count = os.environ.get(KILL_VARIABLE, "").partition(":")
    if armed == step.value:
        _reached[step] += 1
        if _reached[step] == int(count or 1):
            os.kill(os.getpid(), signal.SIGKILL)
