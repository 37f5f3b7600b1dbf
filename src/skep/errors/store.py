"""What can go wrong between a daemon and its store."""

from skep.errors import Conflict, InternalFault, Unavailable


class StoreUnavailable(Unavailable):
    """The store does not answer; what was last read is still true as of then."""

    code = "store_unavailable"


class StoreBroken(InternalFault):
    """The store's file or answer is not what it should be."""

    code = "store_broken"


class LeaseLost(Conflict):
    """The lease has expired or was revoked; the keys under it are gone."""

    code = "lease_lost"


class WatchCompacted(Conflict):
    """The history that the watch asked for is gone: list again and watch from there."""

    code = "watch_compacted"
