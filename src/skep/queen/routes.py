"""From a model's name to the pools and replicas that serve it, and what may be hoped for when none does."""

from enum import StrEnum

import msgspec

from skep.lifecycle.pool import PoolState
from skep.lifecycle.replica import ReplicaState
from skep.queen.registry import SERVING, Node, Registry
from skep.queen.replica import Replica
from skep.wire.node import PoolReport

RETURN_S = 60.0
"""How long a pool that served is hoped for after it became unready: its hive restarts what crashed, with backoff."""

_COMING = frozenset(
    {
        PoolState.DECLARED.value,
        PoolState.PROVISIONING.value,
        PoolState.STARTING.value,
        PoolState.RELOADING.value,
        PoolState.UNLOADING.value,
        PoolState.READY.value,
    }
)
_LEAVING = frozenset({PoolState.DRAINING.value, PoolState.OFFLINE.value})
_RETURNING = frozenset(
    {
        ReplicaState.PLANNED.value,
        ReplicaState.STARTING.value,
        ReplicaState.CRASHED.value,
        ReplicaState.SUSPECT.value,
        *SERVING,
    }
)


class Hope(StrEnum):
    """What a request for a model may expect when no replica takes it now."""

    READY = "ready"
    COMING = "coming"
    ASLEEP = "asleep"
    DOWN = "down"


class PoolRoute(msgspec.Struct, frozen=True):
    """A pool on a node, and its replicas that serve."""

    node: Node
    pool: PoolReport
    replicas: tuple[Replica, ...]

    @property
    def hope(self) -> Hope:
        """What the pool's state promises."""
        if not self.node.is_heard:
            return Hope.COMING
        if not self.node.is_alive or self.pool.state in _LEAVING:
            return Hope.DOWN
        if self.replicas:
            return Hope.READY
        if self.pool.state == PoolState.IDLE.value:
            return Hope.ASLEEP
        is_restarting = self.node.served_within(self.pool.pool_id, RETURN_S)
        is_coming = self.pool.state in _COMING or any(one.state in _RETURNING for one in self.pool.replicas)
        return Hope.COMING if is_coming or is_restarting else Hope.DOWN


class Route(msgspec.Struct, frozen=True):
    """Everything that serves one name. `model` is the name proper, also when an alias was asked for."""

    model: str
    pools: tuple[PoolRoute, ...]

    @property
    def replicas(self) -> list[Replica]:
        """Every replica that serves, whether trusted or not."""
        return [replica for pool in self.pools for replica in pool.replicas]

    @property
    def slots_total(self) -> int:
        """Slots over all replicas that serve."""
        return sum(replica.slots_total for replica in self.replicas)

    @property
    def hope(self) -> Hope:
        """The best that any of its pools promises."""
        hopes = {pool.hope for pool in self.pools}
        return next((hope for hope in Hope if hope in hopes), Hope.DOWN)

    def sleeping(self) -> list[PoolRoute]:
        """Pools that load on demand and are asleep."""
        return [pool for pool in self.pools if pool.hope is Hope.ASLEEP]

    def loading(self) -> dict[str, object]:
        """Return the `loading` object of an answer: each pool's state, progress and last error."""
        return {
            "model": self.model,
            "pools": [
                {
                    "pool_id": one.pool.pool_id,
                    "node_id": one.node.node_id,
                    "node_state": one.node.state.value,
                    "state": one.pool.state,
                    "progress": one.pool.progress,
                    "last_error": one.pool.last_error,
                }
                for one in self.pools
            ],
        }


class Routes:
    """The table of names, rebuilt when the registry has changed and somebody asks."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._table: dict[str, Route] | None = None
        registry.listen(self._forget)

    def get(self, name: str) -> Route | None:
        """Return the route for a model's name or alias; None when no pool has it."""
        return self.table.get(name)

    def models(self) -> list[str]:
        """Return the models' names, without aliases, in order."""
        return sorted({route.model for route in self.table.values()})

    @property
    def table(self) -> dict[str, Route]:
        """Every name and alias with its route. A name proper wins over an alias."""
        if self._table is None:
            self._table = self._built()
        return self._table

    def _forget(self) -> None:
        self._table = None

    def _built(self) -> dict[str, Route]:
        by_model: dict[str, list[PoolRoute]] = {}
        aliases: dict[str, str] = {}
        for node in self._registry.nodes.values():
            for pool in node.pools.values():
                serving = tuple(
                    node.replicas[f"{pool.pool_id}/{one.replica_id}"]
                    for one in pool.replicas
                    if one.state in SERVING
                )
                if not node.is_alive or pool.state in _LEAVING:
                    serving = ()
                by_model.setdefault(pool.model, []).append(PoolRoute(node, pool, serving))
                for alias in pool.aliases:
                    aliases.setdefault(alias, pool.model)
        table = {model: Route(model, tuple(pools)) for model, pools in by_model.items()}
        return {alias: table[model] for alias, model in aliases.items()} | table
