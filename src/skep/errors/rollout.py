"""What can go wrong while hosts are brought to their declared state."""

from skep.errors import Conflict, InvalidConfig, NotFound, SkepError, Timeout, Unavailable


class RolloutFailed(SkepError):
    """A host could not be brought to its declared state. Base of the causes below."""

    code, http_status = "rollout_failed", 500


class HostUnreachable(Unavailable):
    """No connection to the host; nothing is known of its state."""

    code = "host_unreachable"


class HostKeyRefused(RolloutFailed):
    """The host's key is unknown, or not the one that is on record."""

    code = "host_key_refused"


class LoginRefused(RolloutFailed):
    """The host refused every key that we may use."""

    code = "login_refused"


class ConnectionLost(Unavailable):
    """The connection dropped while a command ran; its end is unknown, so it counts as failed."""

    code = "connection_lost"


class StepLimitExceeded(Timeout):
    """A step on the host ran longer than its limit and was stopped."""

    code = "step_limit_exceeded"


class StepFailed(RolloutFailed):
    """A step on the host ended with an error; its output's last lines are in `log_tail`."""

    code = "step_failed"


class HostBusy(Conflict):
    """Another sync holds this host's lock."""

    code, retryable = "host_busy", True


class HostChanged(Conflict):
    """The host changed between reading it and acting on it."""

    code, retryable = "host_changed", True


class FactsUnreadable(RolloutFailed):
    """The host answered, but not with a whole set of facts."""

    code = "facts_unreadable"


class ImpossibleHere(RolloutFailed):
    """The host lacks what the declared state needs; every lack is named."""

    code = "impossible_here"


class NoWheelFits(RolloutFailed):
    """A package that a host needs has no wheel for the host's platform; `package` and `target` name both."""

    code = "no_wheel_fits"


class ArtifactMissing(NotFound):
    """What should be installed is not where the configuration says."""

    code = "artifact_missing"


class NothingToRollBack(Conflict):
    """The host keeps no earlier version."""

    code = "nothing_to_roll_back"


class UnknownHive(InvalidConfig):
    """`--hive` names no declared hive or tag."""

    code = "unknown_hive"
