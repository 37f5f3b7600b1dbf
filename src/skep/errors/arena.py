"""What can go wrong between a trace and a reward.

InvalidInput ── TraceUnreadable ─┬─ TraceTruncated
                                 ├─ UnsupportedTraceVersion
                                 └─ TraceInvalid ─┬─ InvalidQuantity
                                                  ├─ InvalidManifest
                                                  └─ UnknownKind
                SnapshotUnreadable
NotFound ────── TraceNotFound, DeploymentNotFound, SimulationNotFound, ObjectNotFound, UnknownName
Conflict ────── SimulationExists, SafeguardViolated
Unavailable ─── DriverUnavailable ── DriverForbidden
SkepError ───── SimulationFailed, ObservationFailed, PolicyFailed, HookFailed, StepCancelled
InternalFault ─ RecordsUnwritable
"""

from skep.errors import Conflict, InternalFault, InvalidInput, NotFound, SkepError, Unavailable


class TraceUnreadable(InvalidInput):
    """The file is not a trace that can be read. Base of the causes below."""

    code = "trace_unreadable"


class TraceTruncated(TraceUnreadable):
    """The trace ends before its own structure says that it should."""

    code = "trace_truncated"


class UnsupportedTraceVersion(TraceUnreadable):
    """The trace has a version that is not known here (fact: `version`)."""

    code = "unsupported_trace_version"


class TraceInvalid(TraceUnreadable):
    """A value of the trace has the wrong type or is outside its range (fact: `where`)."""

    code = "trace_invalid"


class InvalidQuantity(TraceInvalid):
    """A Kubernetes quantity that cannot be parsed, is negative, or is absurdly large."""

    code = "invalid_quantity"


class UnknownKind(TraceInvalid):
    """An object of a kind that is neither built in nor declared by the trace (fact: `kind`)."""

    code = "unknown_kind"


class TraceNotFound(NotFound):
    """No file stands at the trace's path."""

    code = "trace_not_found"


class DeploymentNotFound(NotFound):
    """The trace applies no such workload in this namespace."""

    code = "deployment_not_found"


class SimulationNotFound(NotFound):
    """The driver knows no simulation of this name."""

    code = "simulation_not_found"


class UnknownName(NotFound):
    """No action, policy, reward, driver or scenario has this name (fact: `known`)."""

    code = "unknown_name"


class SimulationExists(Conflict):
    """A simulation of this name exists already; it is not ours to reuse."""

    code = "simulation_exists"


class SafeguardViolated(Conflict):
    """What was asked for lies beyond a safeguard."""

    code = "safeguard_violated"


class DriverUnavailable(Unavailable):
    """The driver's cluster cannot be reached, or lacks what the driver needs."""

    code = "driver_unavailable"


class DriverForbidden(DriverUnavailable):
    """The cluster refuses this verb on this resource (RBAC); the message says what to grant."""

    code, retryable = "driver_forbidden", False


class SimulationFailed(SkepError):
    """The simulation ended as failed, or never came to an end."""

    code, http_status = "simulation_failed", 500


class ObservationFailed(SkepError):
    """The state of the simulation could not be read; never taken for zeros."""

    code, http_status, retryable = "observation_failed", 502, True


class PolicyFailed(SkepError):
    """The policy did not come to a decision."""

    code, http_status = "policy_failed", 502


class HookFailed(SkepError):
    """A hook that may not fail did."""

    code, http_status = "hook_failed", 500


class StepCancelled(SkepError):
    """The step was asked to stop before it was done."""

    code, http_status = "step_cancelled", 499


class RecordsUnwritable(InternalFault):
    """A record could not be brought to disk whole."""

    code = "records_unwritable"


class InvalidManifest(TraceInvalid):
    """A Kubernetes manifest holds a value of the wrong type or outside its range (fact: `where`)."""

    code = "invalid_manifest"


class ObjectNotFound(NotFound):
    """The simulated cluster holds no such object."""

    code = "object_not_found"


class SnapshotUnreadable(InvalidInput):
    """These bytes are no snapshot of a simulated cluster, or one of another version."""

    code = "snapshot_unreadable"
