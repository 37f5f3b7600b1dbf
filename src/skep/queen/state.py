"""The queen's side of the store: mirrors what is kept there into the parts that use it, and writes nodes down.

When the store is away, everything goes on with what was known last; `/health` says so.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec
import structlog

from skep.errors.store import StoreBroken, StoreUnavailable
from skep.lifecycle.node import NodeState
from skep.queen import keys
from skep.queen.forward import Forwarder
from skep.queen.keygate import KeyGate
from skep.queen.keys import Key, Usage
from skep.queen.membership import Membership
from skep.queen.mirror import Mirror
from skep.queen.records import CORDONS, LEADER, NODES, QUEENS, NodeRecord, QueenRecord, ServedPool
from skep.queen.registry import Node, Registry
from skep.store.base import Delete, Put, Store
from skep.wire.node import PoolReport, RegisterRequest

log = structlog.get_logger(__name__)

T = TypeVar("T")

FLUSH_S = 2.0
NODES_PENDING_MAX = 10_000


class State:
    """Keys, peers, expected nodes and cordons from the store; nodes and usage to it."""

    def __init__(
        self, store: Store, registry: Registry, gate: KeyGate, membership: Membership, forwarder: Forwarder
    ) -> None:
        self.store = store
        self._registry, self._gate, self._forwarder = registry, gate, forwarder
        self.membership = membership
        self.mirror = Mirror(store, "", self._changed)
        self._listeners: list[Callable[[frozenset[str]], None]] = []
        self._unwritten: set[str] = set()

    def listen(self, listener: Callable[[frozenset[str]], None]) -> None:
        """Call `listener` with the keys that have changed."""
        self._listeners.append(listener)

    @property
    def away_s(self) -> float | None:
        """How long the store has been away; None while it answers."""
        since = self.mirror.lost_since_s
        return None if since is None else time.monotonic() - since

    def is_cordoned(self, node_id: str) -> bool:
        """True when an operator wants no new work on a node."""
        return CORDONS + node_id in self.mirror.items

    async def cordon(self, node_id: str, *, is_cordoned: bool) -> None:
        """Write an operator's wish down; every queen follows. Raises: StoreUnavailable."""
        key = CORDONS + node_id
        await self.store.txn([], [Put(key=key, value=b"") if is_cordoned else Delete(key=key)])

    def node_changed(self, node_id: str) -> None:
        """A node has registered, left, or has other pools: write it down soon."""
        if len(self._unwritten) < NODES_PENDING_MAX:
            self._unwritten.add(node_id)

    async def flush_for_ever(self) -> None:
        """Write nodes and usage down every little while."""
        while True:
            await asyncio.sleep(FLUSH_S)
            try:
                await self.flush()
            except (StoreUnavailable, StoreBroken) as error:
                log.debug("flush_waits", reason=str(error))

    async def flush(self) -> None:
        """Write down what is not yet. Raises: StoreUnavailable."""
        await self._gate.flush(self.store)
        for node_id in list(self._unwritten):
            node = self._registry.nodes.get(node_id)
            key = NODES + node_id
            known = self.mirror.items.get(key)
            if node is None:
                await self.store.txn([], [Delete(key=key)])
            else:
                value = msgspec.json.encode(record_of(node))
                if known is None or known.value != value:
                    await self.store.txn([], [Put(key=key, value=value)])
            self._unwritten.discard(node_id)

    def _changed(self, touched: frozenset[str]) -> None:
        if any(key.startswith(keys.PREFIX) for key in touched):
            self._gate.set_keys(self._keys())
        if any(key.startswith(QUEENS) for key in touched):
            self._forwarder.set_peers(tuple(self.records(QUEENS, QueenRecord)))
        if LEADER in touched and LEADER not in self.mirror.items:
            self.membership.poke()
        for key in touched:
            if key.startswith(keys.USAGE) and (item := self.mirror.items.get(key)) is not None:
                used = msgspec.json.decode(item.value, type=Usage)
                self._gate.set_used(key.removeprefix(keys.USAGE), used)
            if key.startswith(CORDONS):
                self._cordon_known(key.removeprefix(CORDONS))
            if key.startswith(NODES) and (item := self.mirror.items.get(key)) is not None:
                self._node_known(msgspec.json.decode(item.value, type=NodeRecord))
        for listener in self._listeners:
            listener(touched)

    def records(self, prefix: str, kind: type[T]) -> list[T]:
        """Return every record under a prefix."""
        found = [item for key, item in self.mirror.items.items() if key.startswith(prefix)]
        return [msgspec.json.decode(item.value, type=kind) for item in found]

    def _keys(self) -> list[tuple[Key, Usage]]:
        used = {
            key.removeprefix(keys.USAGE): msgspec.json.decode(item.value, type=Usage)
            for key, item in self.mirror.items.items()
            if key.startswith(keys.USAGE)
        }
        return [(key, used.get(key.key_id, Usage())) for key in self.records(keys.PREFIX, Key)]

    def _node_known(self, record: NodeRecord) -> None:
        if record.node_id not in self._registry.nodes:
            self._registry.expect(_expected(record))

    def _cordon_known(self, node_id: str) -> None:
        """Take over what any queen was told about a node."""
        node = self._registry.nodes.get(node_id)
        if (
            node is not None
            and node.is_heard
            and self.is_cordoned(node_id) != (node.state is NodeState.CORDONED)
        ):
            self._registry.cordon(node_id, is_cordoned=self.is_cordoned(node_id))


def record_of(node: Node) -> NodeRecord:
    """Return what of a node is written down."""
    pools = tuple(
        ServedPool(pool_id=pool.pool_id, model=pool.model, aliases=pool.aliases)
        for pool in node.pools.values()
    )
    return NodeRecord(
        node_id=node.node_id,
        address=node.request.address,
        version=node.request.version,
        pools=pools,
    )


def _expected(record: NodeRecord) -> RegisterRequest:
    pools = tuple(
        PoolReport(pool_id=pool.pool_id, model=pool.model, aliases=pool.aliases, state="starting")
        for pool in record.pools
    )
    return RegisterRequest(
        node_id=record.node_id, address=record.address, version=record.version, pools=pools
    )
