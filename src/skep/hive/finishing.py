"""Ending what an earlier hive was draining: its jobs keep the time that they were given, then it goes."""

from contextlib import suppress

import msgspec
import structlog

from skep.errors.hive import HandoffFailed
from skep.errors.process import ReapTimedOut
from skep.errors.web import PeerFailed
from skep.hive.endpoint import Drained
from skep.hive.launching import Running
from skep.hive.node import Node
from skep.spec.engine import EngineSpec

log = structlog.get_logger(__name__)


class Drainee(msgspec.Struct, frozen=True, kw_only=True):
    """One such process. `until_s` on the monotonic clock; `engine` None when this hive does not know it any more."""

    pool_id: str
    replica_id: str
    running: Running
    engine: EngineSpec | None
    until_s: float


async def finish(node: Node, one: Drainee) -> Drained:
    """Drain it until its deadline, stop it, and forget it; whatever happens, nothing of it is left."""
    began, drained = node.clock(), Drained(force_stopped=True)
    log.info("drain_resumed", pool_id=one.pool_id, replica_id=one.replica_id, pid=one.running.process.pid)
    try:
        if one.engine is not None:
            deadline_s = max(one.until_s - began, 0.0)
            with suppress(PeerFailed):
                drained = await node.adapter(one.engine).drain(one.running.endpoint, deadline_s=deadline_s)
    finally:
        await _end(node, one)
    return msgspec.structs.replace(drained, duration_ms=round((node.clock() - began) * 1000))


async def _end(node: Node, one: Drainee) -> None:
    try:
        await one.running.end(node.grace_s)
        node.spawns.remove(one.pool_id, one.replica_id)
    except (ReapTimedOut, HandoffFailed) as error:
        log.warning("drained_worker_stays", pool_id=one.pool_id, replica_id=one.replica_id, error=str(error))
