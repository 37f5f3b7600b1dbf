"""What can go wrong on a node: devices, pools, workers, handoffs, the queen."""

from skep.errors import Conflict, InvalidConfig, InvalidInput, NotFound, SkepError, Timeout, Unavailable


class InvalidMask(InvalidInput):
    """The device mask is empty, doubled, or names what is not here. Facts: `mask`, `available`."""

    code = "invalid_device_mask"


class DeviceGone(Unavailable):
    """A device of the pool's mask is no longer found. Facts: `device_id`."""

    code = "device_gone"


class DiscoveryFailed(SkepError):
    """The vendor's library or tool answered with an error. Facts: `source`."""

    code, http_status = "discovery_failed", 500


class PoolNotFound(NotFound):
    """There is no pool of that id on this node. Facts: `pool_id`."""

    code = "pool_not_found"


class StaleGeneration(Conflict):
    """The declaration is older than the one that this hive has. Facts: `generation`, `present`."""

    code = "stale_generation"


class PoolBusy(Conflict):
    """The pool cannot do that in its present state. Facts: `pool_id`, `state`."""

    code = "pool_busy"


class ForbiddenReference(InvalidInput):
    """A model path that this machine's own configuration does not allow an API call to name. Facts: `ref`."""

    code, http_status = "forbidden_reference", 403


class EngineUnknown(InvalidInput):
    """No `[[engine]]` of that id is configured on this machine. Facts: `engine`, `available`."""

    code = "unknown_engine"


class DoesNotFit(Unavailable):
    """The model does not fit into the free memory of its devices. Facts: `because`, `needed_bytes`."""

    code = "insufficient_memory"


class StartFailed(SkepError):
    """A worker gave up before it was ready. Facts: `cause` (its own code), `log_tail`."""

    code, http_status, retryable = "start_failed", 500, True


class StartTimedOut(Timeout):
    """A worker was not ready in time. Facts: `limit_s`, `progress`."""

    code = "start_timed_out"


class NotOurs(SkepError):
    """Whoever answered is not the process that we started. Facts: `url`."""

    code, http_status = "not_ours", 502


class CannotGenerate(SkepError):
    """The worker answers, and produces no token. Facts: `url`."""

    code, http_status, retryable = "cannot_generate", 502, True


class MemoryNotBack(Timeout):
    """A worker is gone and its device memory is not. Facts: `device_id`."""

    code = "memory_not_back"


class HandoffFailed(SkepError):
    """A handoff file could not be written. Facts: `path`, `reason`."""

    code, http_status, retryable = "handoff_failed", 500, True


class HiveRunning(Conflict):
    """Another hive runs on this runtime folder. Facts: `pid`."""

    code = "hive_running"


class QueenUnreachable(Unavailable):
    """The queen does not answer; registration is tried for ever. Facts: `url`."""

    code = "queen_unreachable"


class UnsafeBind(InvalidConfig):
    """An address that is not loopback, without a token."""

    code = "unsafe_bind"


class ServiceFailed(SkepError):
    """A command that makes the hive a service of the machine failed. Facts: command."""

    code, http_status, retryable = "service_failed", 500, False
