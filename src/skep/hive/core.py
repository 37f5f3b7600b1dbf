"""What the API asks: the node and its pools together, and the questions that need both."""

import re
from pathlib import Path

from skep import __version__
from skep.hive.declared import Wish
from skep.hive.node import Node
from skep.hive.pools import Pools
from skep.hive.registrar import Registrar
from skep.hive.settings import HiveSettings
from skep.hive.view import pool_view
from skep.lifecycle.pool import PoolState
from skep.wire.hive import StateReply, WhyReply


class Core:
    """The running hive, without its server."""

    def __init__(self, node: Node, pools: Pools, registrar: Registrar | None) -> None:
        self.node, self.pools, self._registrar = node, pools, registrar
        self._began = node.clock()

    @property
    def settings(self) -> HiveSettings:
        """How it runs."""
        return self.node.settings

    def waiting(self) -> dict[str, str]:
        """Return the pools that should serve and do not, each with its state and cause."""
        found = {}
        for pool in self.pools.ordered():
            if pool.declared.wish is not Wish.LOADED or pool.state in (PoolState.IDLE, PoolState.UNLOADING):
                continue
            if not pool.serving:
                cause = f": {pool.last_error['message']}" if pool.last_error else ""
                found[pool.id] = f"{pool.state}{cause}"
        return found

    def state(self) -> StateReply:
        """Return the node at a glance."""
        return StateReply(
            node_id=self.settings.node_id,
            instance=self.settings.instance,
            version=__version__,
            uptime_s=round(self.node.clock() - self._began, 3),
            queen=self.settings.queen or None,
            registered=self._registrar is not None and self._registrar.is_registered,
            devices=self.node.inventory.devices,
            pools=tuple(pool_view(one) for one in self.pools.ordered()),
        )

    def why(self, pool_id: str) -> WhyReply:
        """Return what the policies decided of a pool. Raises: PoolNotFound."""
        pool = self.pools.get(pool_id)
        return WhyReply(
            pool_id=pool_id,
            state=pool.state.value,
            last_error=pool.last_error,
            fit=pool.fit_told,
            verdicts=tuple(pool.judging.verdicts),
        )

    def metrics(self) -> bytes:
        """Return the exposition, with the gauges that follow from what is here now."""
        metrics, inventory = self.node.metrics, self.node.inventory
        metrics.show_devices(one for one in inventory.devices if one.id != "cpu")
        for one in inventory.devices:
            if one.id == "cpu":
                metrics.show(metrics.host_total, one.memory_total_bytes)
                metrics.show(metrics.host_available, one.memory_free_bytes)
        for pool in self.pools.ordered():
            serving = pool.serving
            metrics.show(metrics.slots_total, sum(one.load.slots_total for one in serving), pool.id)
            metrics.show(metrics.slots_free, sum(one.load.slots_free for one in serving), pool.id)
        return metrics.render()

    def log_files(self, pool_id: str, replica_id: str | None) -> dict[str, Path]:
        """Return the log files of a pool's replicas by id, those of gone ones too."""
        folder = self.settings.state / "logs"
        pattern = re.compile(rf"{re.escape(pool_id)}-(?P<replica>r\d+)\.log")
        found = {
            match["replica"]: path
            for path in sorted(folder.glob("*.log"))
            if (match := pattern.fullmatch(path.name)) and replica_id in (None, match["replica"])
        }
        for replica in self.pools.get(pool_id).replicas.values():
            if replica_id in (None, replica.id):
                found.setdefault(replica.id, folder / f"{pool_id}-{replica.id}.log")
        return found
