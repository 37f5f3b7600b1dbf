"""Watching a replica that serves: probes at an interval, its exit at once, and what both mean."""

import asyncio
from contextlib import suppress
from typing import Any, Protocol

import msgspec
import structlog

from skep.errors.hive import CannotGenerate, NotOurs
from skep.errors.web import PeerFailed
from skep.hive import crash
from skep.hive.adapter.base import EngineAdapter
from skep.hive.crash import Gone
from skep.hive.endpoint import Load, Look
from skep.hive.launching import Running
from skep.hive.node import Node
from skep.hive.papers import Papers
from skep.hive.plan import Plan
from skep.lifecycle.replica import ReplicaEvent, ReplicaState
from skep.policy.health import Answer, Finding, Probes, judge
from skep.policy.restart import CrashReason
from skep.process import log as logs

log = structlog.get_logger(__name__)

DEVICE_DRAIN_S = 5.0
"""How long jobs get to end on a device that failed, or beside a process that says so."""


class Watched(Protocol):
    """What watching needs of a replica: where it stands, what its probes said, and whom to tell."""

    id: str
    plan: Plan
    state: ReplicaState
    probes: Probes
    load: Load
    papers: Papers
    nudged: asyncio.Event
    device_error: str

    @property
    def ready_s(self) -> float:
        """How long it has been ready in this life."""
        ...

    def advance(self, event: ReplicaEvent, **facts: Any) -> None:
        """Take an event. Raises: IllegalTransition."""
        ...

    def note_stable(self) -> None:
        """Credit the time that it has been ready."""
        ...

    def report_device(self, cause: dict[str, Any]) -> None:
        """Take it out of service: its own process reports an error of its device."""
        ...


async def watch(replica: Watched, running: Running, node: Node, adapter: EngineAdapter) -> Gone:
    """Probe until the replica is gone, and return how it went."""
    while True:
        await _exit_or_nudge(running, replica.nudged, within_s=node.settings.probe_interval_s)
        if (ended := running.process.exit) is not None:
            return crash.of_exit(ended, running, ready_s=replica.ready_s)
        if replica.device_error:
            with suppress(PeerFailed):
                await adapter.drain(running.endpoint, deadline_s=DEVICE_DRAIN_S)
            return _condemned(replica, running, CrashReason.DEVICE_ERROR, replica.device_error)
        if replica.state is ReplicaState.DRAINING:
            continue
        look = await _look(running, node, adapter)
        if running.process.exit is None and (gone := _take(replica, running, node, look)):
            return gone


async def _exit_or_nudge(running: Running, nudged: asyncio.Event, *, within_s: float) -> None:
    """Return when the process ended, somebody wants attention, or the time is over."""
    waits = [asyncio.ensure_future(running.process.wait()), asyncio.ensure_future(nudged.wait())]
    try:
        await asyncio.wait(waits, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waits:
            one.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def _look(running: Running, node: Node, adapter: EngineAdapter) -> Look:
    look = await adapter.look(running.endpoint)
    is_idle = look.load is None or look.load.is_idle
    if look.answer is not Answer.WELL or not node.settings.inference_probe or not is_idle:
        return look
    try:
        await adapter.prove(running.endpoint)
    except NotOurs as error:
        return Look(answer=Answer.FOREIGN, detail=str(error))
    except CannotGenerate as error:
        return Look(answer=Answer.MUTE, load=look.load, detail=str(error))
    return look


def _take(replica: Watched, running: Running, node: Node, look: Look) -> Gone | None:
    """Act on one probe; the end of the life when it was condemned."""
    if replica.state not in (ReplicaState.READY, ReplicaState.SUSPECT):
        return None
    pool_id = replica.plan.spec.id
    verdict = judge(replica.probes, look.answer)
    replica.probes = verdict.probes
    node.metrics.count(node.metrics.probes, pool_id, look.answer.value)
    replica.load = look.load or msgspec.structs.replace(replica.load, is_known=False)
    match verdict.finding:
        case Finding.ANSWERED:
            if replica.state is ReplicaState.SUSPECT:
                replica.advance(ReplicaEvent.PROBE_ANSWERED)
            replica.note_stable()
            replica.papers.publish(running)
            logs.bound(running.log_path)
            return None
        case Finding.MISSED:
            log.warning("probe_missed", pool_id=pool_id, replica_id=replica.id, detail=look.detail)
            if replica.state is ReplicaState.READY:
                replica.advance(ReplicaEvent.PROBE_MISSED, detail=look.detail)
            return None
        case Finding.DEVICE_ERROR:
            gone = _condemned(replica, running, CrashReason.DEVICE_ERROR, look.detail)
            replica.report_device(gone.cause)
            return None
        case Finding.EXHAUSTED:
            if replica.state is ReplicaState.READY:
                replica.advance(ReplicaEvent.PROBE_MISSED, detail=look.detail)
            return _condemned(replica, running, CrashReason.HEALTH, look.detail)


def _condemned(replica: Watched, running: Running, reason: CrashReason, detail: str) -> Gone:
    return crash.of_probe(reason, detail, running, ready_s=replica.ready_s)
