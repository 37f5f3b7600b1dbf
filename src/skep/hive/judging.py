"""What a pool's replicas have been through: the restart policy asked, its verdicts kept, and both outliving the hive.

Without the last, a hive that is restarted (or killed together with what keeps crashing) would begin with a clean slate
and restart a broken worker five times more. The times are of the monotonic clock, which one boot shares.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from skep.errors import SkepError
from skep.hive.declared import DeclaredStore, Past
from skep.hive.node import Node
from skep.hive.replica import Replica
from skep.policy import restart
from skep.policy.breaker import BreakerState
from skep.policy.restart import Crash, History, Verdict
from skep.policy.storm import Storm
from skep.process.identity import boot_id
from skep.spec.pool import PoolSpec
from skep.wire.hive import WhyEntry

log = structlog.get_logger(__name__)

VERDICTS_KEPT = 100


class Judging:
    """One pool's histories. `tell` adds an event to the pool's log; `spec` is its present declaration."""

    def __init__(
        self,
        pool_id: str,
        node: Node,
        store: DeclaredStore,
        *,
        spec: Callable[[], PoolSpec],
        tell: Callable[..., None],
    ) -> None:
        self.verdicts: deque[WhyEntry] = deque(maxlen=VERDICTS_KEPT)
        self._pool_id, self._node, self._store, self._spec, self._tell = pool_id, node, store, spec, tell
        self._storm = Storm()
        self._histories: dict[str, History] = {}
        self._inherited: dict[str, History] = {}
        self._is_saved, self._is_saving = True, False

    def restore(self, past: Past) -> None:
        """Take up what an earlier hive learned, unless the machine was started, or the pool changed, since."""
        if past.boot_id == boot_id() and past.spec == self._spec():
            self._storm, self._inherited = past.storm, dict(past.histories)

    def inherit(self, replica_id: str) -> History:
        """Return the history that a new replica goes on with: of its own id, else of any that is not taken up."""
        if not self._inherited:
            return History()
        own = replica_id if replica_id in self._inherited else next(iter(self._inherited))
        return self._inherited.pop(own)

    def held_s(self) -> float:
        """Return for how long nothing may be started: 0 unless every replica would take up a history that is held."""
        if len(self._inherited) < self._spec().replicas:
            return 0.0
        soonest_s = min(restart.due_s(one) for one in self._inherited.values())
        return max(soonest_s - self._node.clock(), 0.0)

    def judge(self, replica: Replica, fact: Crash) -> Verdict:
        """Decide what becomes of a replica that is gone, and keep its history."""
        outcome = restart.crashed(replica.history, self._storm, fact, limits=self._node.settings.restart)
        replica.restarting.history, self._storm = outcome.history, outcome.storm
        self.remember(replica)
        verdict, metrics = outcome.verdict, self._node.metrics
        facts: dict[str, Any] = msgspec.to_builtins(verdict)
        self.verdicts.append(
            WhyEntry(at=self._node.wall(), replica_id=replica.id, verdict=facts, error=replica.last_error)
        )
        metrics.count(metrics.restarts, self._pool_id, fact.reason.value)
        metrics.show(metrics.backoff, verdict.delay_s, self._pool_id)
        if verdict.is_storm:
            metrics.count(metrics.storms, self._pool_id)
        self._tell(
            "verdict",
            replica_id=replica.id,
            restart_count=replica.history.restarts,
            backoff_s=round(verdict.delay_s, 3),
            last_error=replica.last_error,
            **facts,
        )
        return verdict

    def count_device_fault(self) -> None:
        """Count one error of a driver or device."""
        metrics = self._node.metrics
        metrics.count(metrics.driver_resets, self._pool_id)

    def remember(self, replica: Replica) -> None:
        """Keep a replica's history for a successor of this hive; what has nothing to tell is not kept."""
        before, held = self._histories.get(replica.id), replica.history.breaker_state
        if replica.history.failures or held is not BreakerState.CLOSED:
            self._histories[replica.id] = replica.history
        else:
            self._histories.pop(replica.id, None)
        if self._histories.get(replica.id) != before:
            self._node.metrics.show_breaker(self._pool_id, self._worst())
            self._save()

    def reset(self) -> None:
        """Forgive everything."""
        self._storm, self._histories, self._inherited = Storm(), {}, {}
        self._node.metrics.show(self._node.metrics.backoff, 0, self._pool_id)
        self._node.metrics.show_breaker(self._pool_id, BreakerState.CLOSED)
        self._save()

    def _worst(self) -> BreakerState:
        """Return the state that most keeps the pool's replicas from starting."""
        states = {one.breaker_state for one in self._histories.values()}
        order = (BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED)
        return next((one for one in order if one in states), BreakerState.CLOSED)

    def _save(self) -> None:
        """Store it soon: at most one write runs, and it writes what is newest."""
        self._is_saved = False
        if not self._is_saving and not self._node.stopping:
            self._is_saving = True
            self._node.run(self._write(), name=f"remember {self._pool_id}")

    async def _write(self) -> None:
        try:
            while not self._is_saved:
                self._is_saved = True
                await self._store.put_past(
                    self._pool_id,
                    Past(
                        boot_id=boot_id(),
                        spec=self._spec(),
                        storm=self._storm,
                        histories={**self._inherited, **self._histories},
                    ),
                )
        except SkepError as error:
            log.warning("history_not_stored", pool_id=self._pool_id, error=str(error))
        finally:
            self._is_saving = False
