"""What was declared on this node and what its operator wished, in the hive's own database: it outlives the hive."""

from enum import StrEnum, auto

import msgspec

from skep.errors import InternalFault
from skep.hive.plan import Plan
from skep.spec.pool import PoolSpec
from skep.store.base import Delete, Put, Store

_PREFIX = "pools/"


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


class DeclaredStore:
    """Pools by id, over any `Store`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(self, declared: Declared) -> None:
        """Keep a declaration. Raises: StoreUnavailable."""
        await self._store.txn([], [Put(key=_PREFIX + declared.spec.id, value=msgspec.json.encode(declared))])

    async def remove(self, pool_id: str) -> None:
        """Forget one. Raises: StoreUnavailable."""
        await self._store.txn([], [Delete(key=_PREFIX + pool_id)])

    async def all(self) -> list[Declared]:
        """Return every declaration. Raises: StoreUnavailable, InternalFault (one cannot be read)."""
        snapshot = await self._store.list(_PREFIX)
        try:
            return [msgspec.json.decode(item.value, type=Declared) for item in snapshot.items]
        except msgspec.DecodeError as error:
            raise InternalFault(f"the hive's database holds a pool that cannot be read: {error}") from error
