"""What can go wrong while a child process is owned."""

from skep.errors import Conflict, InternalFault, InvalidInput, SkepError, Timeout


class SpawnFailed(SkepError):
    """The program could not be started. Facts: `argv0`, `reason`."""

    code, http_status = "spawn_failed", 500


class ProcessGone(SkepError):
    """No such process, or its pid belongs to another by now. Facts: `pid`."""

    code, http_status = "process_gone", 410


class ReapTimedOut(Timeout):
    """A process group was killed and did not go away in time (uninterruptible sleep?). Facts: `pid`, `members`."""

    code = "reap_timed_out"


class PortInUse(Conflict):
    """Another program listens there. Facts: `host`, `port`."""

    code = "port_in_use"


class BindFailed(InvalidInput):
    """The address cannot be bound. Facts: `host`, `port`, `reason`."""

    code = "bind_failed"


class ReportMalformed(InternalFault):
    """The child wrote something that is no report line. Facts: `reason`."""

    code = "report_malformed"


class GuardGone(InternalFault):
    """The guard process died, so nothing watches over what it was told to watch."""

    code = "guard_gone"
