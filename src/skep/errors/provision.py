"""What can go wrong while an engine or a model is brought to a folder."""

from skep.errors import InternalFault, InvalidConfig, InvalidInput, NotFound, SkepError, Timeout, Unavailable


class ProvisionFailed(SkepError):
    """An engine or a model could not be brought here. Base of the causes below."""

    code, http_status = "provision_failed", 500


class ToolsMissing(ProvisionFailed):
    """Programs that the steps need are not on PATH; every missing one is named at once."""

    code = "tools_missing"


class StepForbidden(ProvisionFailed):
    """`[provisioning] allow` does not list what a step does."""

    code, http_status = "step_forbidden", 403


class EngineNotFound(NotFound):
    """The engine's program is not where its declaration says."""

    code = "engine_not_found"


class ContainerUnsupported(InvalidConfig):
    """Engines in containers are not supported."""

    code = "container_unsupported"


class DownloadFailed(ProvisionFailed):
    """The server or the network did not give the file; what came is kept and resumed."""

    code, retryable = "download_failed", True


class ChecksumMismatch(ProvisionFailed):
    """The file that came is not the one that was asked for; it was removed."""

    code = "checksum_mismatch"


class NoSpace(ProvisionFailed):
    """The disk has too little room; what came is kept and resumed."""

    code, retryable = "no_space", True


class UnsafeArchive(ProvisionFailed):
    """An archive holds a member that would leave its folder, or none that can be run."""

    code = "unsafe_archive"


class BuildFailed(ProvisionFailed):
    """A build step ended with an error; its last lines are in `log_tail`."""

    code = "build_failed"


class ProgramBroken(ProvisionFailed):
    """The staged program does not run; nothing was switched."""

    code = "program_broken"


class StepTimedOut(Timeout):
    """A provisioning step ran longer than its limit and was stopped."""

    code = "step_timed_out"


class LockTimedOut(Unavailable):
    """Another process has been provisioning the same thing for longer than we wait."""

    code = "lock_timed_out"


class BadReference(InvalidInput):
    """The reference names nothing that can be fetched."""

    code = "bad_reference"


class HubFailed(DownloadFailed):
    """The model hub refused or does not know the file."""

    code = "hub_failed"


class LockBroken(InternalFault):
    """A lock file could not be opened."""

    code = "lock_broken"
