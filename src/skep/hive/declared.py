"""What was declared on this node and what its operator wished, in the hive's own database: it outlives the hive."""

from enum import StrEnum, auto

import msgspec
import structlog

from skep.errors import InternalFault
from skep.hive.plan import Plan
from skep.policy.restart import History
from skep.policy.storm import Storm
from skep.spec.pool import PoolSpec
from skep.store.base import Delete, Put, Store

log = structlog.get_logger(__name__)

_PREFIX = "pools/"
_PASTS = "pasts/"


class Wish(StrEnum):
    """What the operator wants of a pool."""

    LOADED = auto()
    OFFLINE = auto()


class Source(StrEnum):
    """Where the declaration came from: a pool of the configuration follows its file at each start."""

    CONFIG = auto()
    API = auto()


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """A declared pool. `plan` is what its running replicas were last started from."""

    spec: PoolSpec
    mask: tuple[str, ...]
    generation: int = 0
    wish: Wish = Wish.OFFLINE
    source: Source = Source.API
    plan: Plan | None = None


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """What the replicas of a pool, declared as `spec`, have been through. Its times are monotonic, of one boot."""

    boot_id: str
    spec: PoolSpec
    storm: Storm
    histories: dict[str, History]


class DeclaredStore:
    """Pools by id, over any `Store`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(self, declared: Declared) -> None:
        """Keep a declaration. Raises: StoreUnavailable."""
        await self._store.txn([], [Put(key=_PREFIX + declared.spec.id, value=msgspec.json.encode(declared))])

    async def remove(self, pool_id: str) -> None:
        """Forget one. Raises: StoreUnavailable."""
        await self._store.txn([], [Delete(key=_PREFIX + pool_id), Delete(key=_PASTS + pool_id)])

    async def all(self) -> list[Declared]:
        """Return every declaration. Raises: StoreUnavailable, InternalFault (one cannot be read)."""
        snapshot = await self._store.list(_PREFIX)
        try:
            return [msgspec.json.decode(item.value, type=Declared) for item in snapshot.items]
        except msgspec.DecodeError as error:
            raise InternalFault(f"the hive's database holds a pool that cannot be read: {error}") from error

    async def put_past(self, pool_id: str, past: Past) -> None:
        """Keep what a pool has been through. Raises: StoreUnavailable."""
        await self._store.txn([], [Put(key=_PASTS + pool_id, value=msgspec.json.encode(past))])

    async def pasts(self) -> dict[str, Past]:
        """Return what is kept, by pool; one that cannot be read is dropped. Raises: StoreUnavailable."""
        found = {}
        for item in (await self._store.list(_PASTS)).items:
            try:
                found[item.key.removeprefix(_PASTS)] = msgspec.json.decode(item.value, type=Past)
            except msgspec.DecodeError as error:
                log.warning("past_unreadable", key=item.key, error=str(error))
        return found
