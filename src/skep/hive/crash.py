"""How a life ended, and what that means: from exits and errors to one reason, one cause and one event."""

import signal
from contextlib import suppress
from typing import Any

import msgspec

from skep.errors import SkepError
from skep.errors.hive import CannotGenerate, DoesNotFit, InvalidMask, NotOurs, StartFailed, StartTimedOut
from skep.errors.runtime import InsufficientMemory
from skep.hive.launching import Running
from skep.hive.oom import oom_kills
from skep.lifecycle.replica import ReplicaEvent, ReplicaState
from skep.policy.health import Ending, crash_reason
from skep.policy.restart import CrashReason
from skep.process.owned import Exit
from skep.wire.start import Failed

LOG_LINES = 20
_HINTS: dict[int | None, str] = {
    signal.SIGBUS: ": its model file was truncated in place; replace model files by a rename"
}


class Gone(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a life. `cause` is what people are told: code, message and the log's last lines."""

    reason: CrashReason
    cause: dict[str, Any]
    ready_s: float = 0.0

    @property
    def facts(self) -> dict[str, Any]:
        """What goes into the event."""
        return {
            "reason": self.reason.value,
            "error": self.cause.get("message", ""),
            "code": self.cause["code"],
        }


def of_exit(ended: Exit, running: Running, *, ready_s: float) -> Gone:
    """Return the end of a process that exited by itself."""
    tail = running.log_tail(LOG_LINES)
    told = running.error_code or _last_words(tail)
    reason = crash_reason(
        Ending(
            exit_code=ended.code,
            signal=ended.signal,
            error_code=told,
            log_tail=tail,
            oom_kills=max(oom_kills() - running.oom_kills_before, 0) if ended.signal else 0,
        )
    )
    message = f"the worker ended with {ended}{_HINTS.get(ended.signal, '')}"
    return Gone(reason=reason, cause=_cause(told or reason.value, message, tail), ready_s=ready_s)


def _last_words(tail: str) -> str:
    """The code that a worker gave on stderr when it gave up after it had been ready; empty when it said nothing."""
    for line in reversed(tail.splitlines()):
        if line.startswith('{"event":"failed"'):
            with suppress(msgspec.DecodeError):
                return msgspec.json.decode(line, type=Failed).code
    return ""


def of_error(error: Exception, running: Running | None) -> Gone:
    """Return the end of a life that an error stopped before it was ready."""
    tail = running.log_tail(LOG_LINES) if running else ""
    ended = running.process.exit if running else None
    reported = (running.error_code if running else "") or _cause_code(error)
    match error:
        case StartTimedOut():
            reason = CrashReason.START_TIMEOUT
        case DoesNotFit() | InsufficientMemory():
            reason = CrashReason.OUT_OF_MEMORY
        case InvalidMask():
            reason = CrashReason.DEVICE_ERROR
        case CannotGenerate() | NotOurs():
            reason = CrashReason.HEALTH
        case _:
            reason = crash_reason(
                Ending(
                    exit_code=ended.code if ended and ended.code else 1,
                    signal=ended.signal if ended else None,
                    error_code=reported,
                    log_tail=tail,
                )
            )
    code = reported or (error.code if isinstance(error, SkepError) else "os_error")
    return Gone(reason=reason, cause=_cause(code, str(error), tail))


def of_probe(reason: CrashReason, detail: str, running: Running, *, ready_s: float) -> Gone:
    """Return the end of a life that a probe condemned."""
    return Gone(
        reason=reason, cause=_cause(reason.value, detail, running.log_tail(LOG_LINES)), ready_s=ready_s
    )


def cause_of(error: BaseException) -> dict[str, Any]:
    """Return an error as a cause."""
    return _cause(error.code if isinstance(error, SkepError) else "internal", str(error) or repr(error), "")


def event_of(gone: Gone, state: ReplicaState) -> ReplicaEvent:
    """Return the event by which a life that ended so leaves its state."""
    if gone.reason is CrashReason.DEVICE_ERROR:
        return ReplicaEvent.DEVICE_ERROR
    if gone.reason is CrashReason.START_TIMEOUT and state is ReplicaState.STARTING:
        return ReplicaEvent.START_TIMED_OUT
    if gone.reason is CrashReason.HEALTH and state is ReplicaState.SUSPECT:
        return ReplicaEvent.PROBES_EXHAUSTED
    return ReplicaEvent.EXITED


def _cause_code(error: Exception) -> str:
    """Return what the worker itself said, "" when it said nothing."""
    return str(error.facts.get("cause") or "") if isinstance(error, StartFailed) else ""


def _cause(code: str, message: str, tail: str) -> dict[str, Any]:
    return {"code": code, "message": message} | ({"log_tail": tail} if tail else {})
