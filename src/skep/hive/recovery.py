"""After a start: what did an earlier hive leave running here, and what becomes of it?

Every process that a hive starts is recorded before it is spawned, with a nonce that it carries in its environment. So a
successor finds each of them, by its handoff file, its spawn record, or the nonce alone:

- it is ours (pid, start time, boot and nonce all match), and the stored plan of a wanted pool started it: adopted;
- it is ours and was being drained, or serves a pool that is wanted offline by now: its jobs keep their time;
- it is ours in any other way: reaped, with everything that carries its nonce;
- it is not ours (a reused pid, another node's file, a file we cannot read): left alone.
"""

import time
from collections.abc import Iterable

import msgspec
import structlog

from skep.errors.process import ProcessGone
from skep.hive.declared import Declared, Wish
from skep.hive.endpoint import Endpoint
from skep.hive.finishing import Drainee
from skep.hive.handoff import NONCE_VARIABLE, HandoffFolder, SpawnFolder, SpawnRecord
from skep.hive.launching import Running
from skep.hive.plan import known_engines
from skep.hive.settings import HiveSettings
from skep.process import group
from skep.process import log as logs
from skep.process.adopted import adopt
from skep.process.identity import Stat, boot_id
from skep.process.owned import OwnedProcess
from skep.wire.handoff import Handoff
from skep.wire.hive import DRAIN_MS_DEFAULT

log = structlog.get_logger(__name__)


class Inheritance(msgspec.Struct, kw_only=True):
    """What was found. `adoptable` by pool and replica id; `reaped` pids; `foreign` files that were left alone."""

    adoptable: dict[str, dict[str, Running]]
    draining: list[Drainee]
    reaped: list[int]
    malformed: list[str]
    foreign: list[str]


async def recover(
    settings: HiveSettings, handoffs: HandoffFolder, spawns: SpawnFolder, declared: Iterable[Declared]
) -> Inheritance:
    """Find, keep, reap and leave as the module says; only what was adopted keeps its files."""
    found = Inheritance(adoptable={}, draining=[], reaped=[], malformed=[], foreign=[])
    declared = list(declared)
    wanted = {one.spec.id: one for one in declared if one.wish is Wish.LOADED and one.plan is not None}
    offline = {one.spec.id for one in declared if one.wish is Wish.OFFLINE}
    records = {(one.pool_id, one.replica_id): one for one in spawns.scan()}
    kept: set[tuple[str, str]] = set()
    for file in handoffs.scan():
        handoff = file.handoff
        if handoff is None or handoff.node_id not in ("", settings.node_id):
            (found.malformed if handoff is None else found.foreign).append(str(file.path))
            log.warning("handoff_left_alone", path=str(file.path), error=file.error or "another node's")
            continue
        key = (handoff.pool_id, handoff.replica_id)
        running = await _adopt(handoff, wanted.get(handoff.pool_id), settings)
        if running is not None:
            found.adoptable.setdefault(handoff.pool_id, {})[handoff.replica_id] = running
            kept.add(key)
            log.info("worker_adopted", pool_id=key[0], replica_id=key[1], pid=handoff.pid)
            continue
        until_s = time.monotonic() + DRAIN_MS_DEFAULT / 1000 if handoff.pool_id in offline else None
        started = _as_record(handoff, drain_until_s=until_s)
        present = records.setdefault(key, started)
        if present.nonce != started.nonce:
            _reap(started, found)
        elif present.drain_until_s is None:
            records[key] = started
        handoffs.remove(*key)
    for key, record in records.items():
        if key not in kept and (drainee := await _adopt_drained(record, settings)):
            found.draining.append(drainee)
        elif key not in kept:
            _reap(record, found)
            spawns.remove(*key)
        elif record.nonce != found.adoptable[key[0]][key[1]].endpoint.nonce:
            _reap(record, found)  # A start that was under way beside the one that serves.
    return found


async def _adopt(handoff: Handoff, declared: Declared | None, settings: HiveSettings) -> Running | None:
    if declared is None or declared.plan is None or declared.plan.digest != handoff.spec_digest:
        return None
    if handoff.boot_id != boot_id() or not _carries(handoff.pid, handoff.nonce):
        return None
    try:
        process = await adopt(handoff.pid, handoff.pid_started_at)
    except ProcessGone:
        return None
    return _as_running(
        _as_record(handoff), process, settings, model=handoff.model.name, slots=handoff.slots_total
    )


async def _adopt_drained(record: SpawnRecord, settings: HiveSettings) -> Drainee | None:
    """Take over a process that is being drained; None when it is not, or is no longer there."""
    if record.drain_until_s is None or not record.url:
        return None
    if record.boot_id != boot_id() or not _carries(record.pid, record.nonce):
        return None
    try:
        process = await adopt(record.pid, record.pid_started_at)
    except ProcessGone:
        return None
    return Drainee(
        pool_id=record.pool_id,
        replica_id=record.replica_id,
        running=_as_running(record, process, settings),
        engine=known_engines(settings).get(record.engine),
        until_s=record.drain_until_s,
    )


def _as_running(
    record: SpawnRecord, process: OwnedProcess, settings: HiveSettings, *, model: str = "", slots: int = 1
) -> Running:
    log_path = settings.state / "logs" / f"{record.pool_id}-{record.replica_id}.log"
    return Running(
        process=process,
        endpoint=Endpoint(
            url=record.url,
            port=int(record.url.rpartition(":")[2]),
            nonce=record.nonce,
            pgid=record.pid,
            model=model,
            slots=slots,
            token=record.token,
        ),
        report=None,
        log_path=log_path,
        log_from=logs.size(log_path),
    )


def _carries(pid: int, nonce: str) -> bool:
    return any(one.pid == pid for one in group.marked(NONCE_VARIABLE, nonce))


def _as_record(handoff: Handoff, *, drain_until_s: float | None = None) -> SpawnRecord:
    return SpawnRecord(
        pool_id=handoff.pool_id,
        replica_id=handoff.replica_id,
        nonce=handoff.nonce,
        pid=handoff.pid,
        pid_started_at=handoff.pid_started_at,
        boot_id=handoff.boot_id,
        engine=handoff.engine,
        url=handoff.url,
        token=handoff.token,
        drain_until_s=drain_until_s,
    )


def _reap(record: SpawnRecord, found: Inheritance) -> None:
    """Kill everything that carries the record's nonce: the process itself, and what it started, wherever it went."""
    if not record.nonce:
        return
    ours: list[Stat] = group.marked(NONCE_VARIABLE, record.nonce)
    group.kill_each(ours)
    for one in ours:
        log.warning("orphan_reaped", pool_id=record.pool_id, replica_id=record.replica_id, pid=one.pid)
    found.reaped += [one.pid for one in ours]
