"""What can go wrong with a proof bundle."""

from skep.errors import Conflict, InvalidInput, NotFound, SkepError


class InvalidRunId(InvalidInput):
    """A run id that cannot be a folder's name."""

    code = "invalid_run_id"


class RunIdTaken(Conflict):
    """A bundle with this run id is there already; bundles are never overwritten."""

    code = "run_id_taken"


class BundleNotFound(NotFound):
    """No proof bundle stands at this path."""

    code = "bundle_not_found"


class BundleClosed(Conflict):
    """The bundle is finished; nothing can be added to it."""

    code = "bundle_closed"


class BundleWriteFailed(SkepError):
    """A record could not be written whole (a full disk, a lost folder)."""

    code, http_status = "bundle_write_failed", 500


class BundleUnreadable(InvalidInput):
    """A bundle's metadata does not parse: it is damaged, or not one of ours."""

    code = "bundle_unreadable"
