"""The seam: five verbs over keys with revisions. Implementations stand beside it; one contract suite runs over all.

Every committed transaction raises the store's revision by one, and stamps it on the keys that it puts. Comparing
that stamp makes a transaction atomic against everybody else; the revision of a key that a leader holds is its
fencing token.
"""

from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Protocol, Self

import msgspec

KEY_BYTES_MAX = 512
VALUE_BYTES_MAX = 1 << 20
TXN_CHANGES_MAX = 128
"""etcd's own limit for the operations of one transaction (`--max-txn-ops`)."""

LEASE_S_MIN = 1.0


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A key that exists. `revision` is that of its last put; `lease_id` 0 means that it does not expire."""

    key: str
    value: bytes
    revision: int
    lease_id: int = 0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Every key under a prefix, in order, as of one revision: the one to watch from."""

    items: tuple[Item, ...]
    revision: int


class Compare(msgspec.Struct, frozen=True, kw_only=True):
    """A condition: the key's revision is this one; 0 says that the key is absent."""

    key: str
    revision: int


class Put(msgspec.Struct, frozen=True, kw_only=True):
    """Set a key; with a lease, it goes when the lease does."""

    key: str
    value: bytes
    lease_id: int = 0


class Delete(msgspec.Struct, frozen=True, kw_only=True):
    """Remove a key; removing an absent one is fine."""

    key: str


Change = Put | Delete


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a transaction: `done` is False when a condition did not hold, and then nothing changed."""

    done: bool
    revision: int


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One change as a watcher sees it; `value` None means that the key is gone (deleted, or its lease was)."""

    key: str
    value: bytes | None
    revision: int


class Lease(Protocol):
    """A right to keys that expires unless it is kept."""

    id: int
    ttl_s: float

    async def keep(self) -> None:
        """Start the term anew. Raises: LeaseLost, StoreUnavailable (the term runs on)."""
        ...

    async def revoke(self) -> None:
        """End it now and delete its keys; a lease that is gone already is fine. Raises: StoreUnavailable."""
        ...


class Store(Protocol):
    """Keys and values with revisions, leases and watches. Safe for many tasks of one event loop."""

    async def get(self, key: str) -> Item | None:
        """Return the key's item, or None when there is no such key. Raises: StoreUnavailable."""
        ...

    async def list(self, prefix: str) -> Snapshot:
        """Return every item whose key starts with `prefix`, ordered by key. Raises: StoreUnavailable."""
        ...

    async def txn(self, compares: Sequence[Compare], changes: Sequence[Change]) -> Committed:
        """Make all changes if all conditions hold, else none; a key may be changed once.

        Raises: InvalidInput (too many or too large), LeaseLost (a put under a lease that is gone),
        StoreUnavailable (it may or may not have happened: read before trying again).
        """
        ...

    async def lease(self, ttl_s: float) -> Lease:
        """Grant a lease of at least `LEASE_S_MIN` seconds. Raises: StoreUnavailable."""
        ...

    def watch(self, prefix: str, *, after_revision: int) -> AsyncGenerator[tuple[Event, ...]]:
        """Yield changes under `prefix` with a later revision, in order, one transaction's part at a time, for ever.

        Raises: WatchCompacted (list again), StoreUnavailable (watch again from the last revision seen).
        """
        ...

    async def __aenter__(self) -> Self:
        """Open what needs opening. Raises: StoreUnavailable, StoreBroken."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; leases are left to expire."""
        ...
