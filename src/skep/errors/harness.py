"""What a test harness reports of the process that it drives. Every one carries `log_tail` where there is a log."""

from skep.errors import InternalFault, SkepError, Timeout


class HarnessError(SkepError):
    """Base: something about the process under test, not about the test."""

    code, http_status = "harness_error", 500


class WorkerSpawnFailed(HarnessError):
    """The process could not be started, or gave up before it was ready. Facts: `cause`, `reason`, `log_tail`."""

    code = "harness_spawn_failed"


class WorkerReadyTimeout(HarnessError, Timeout):
    """The process was not ready in time; it has been stopped. Facts: `ready_s`, `log_tail`."""

    code = "harness_ready_timeout"


class WorkerHttpFailed(HarnessError):
    """A request failed. Facts: `status` (0: no response), `error` (the error object), `path`."""

    code = "harness_http_failed"


class WorkerDied(HarnessError):
    """The process ended by itself. Facts: `exit_code`, `signal`, `log_tail`."""

    code = "harness_process_died"


class WorkerInvalidResponse(HarnessError, InternalFault):
    """The process answered something that its contract does not know. Facts: `path`."""

    code = "harness_invalid_response"


class StreamTimedOut(HarnessError, Timeout):
    """A stream did not end in time. Facts: `seconds`, `events` (what had arrived)."""

    code = "harness_stream_timeout"
