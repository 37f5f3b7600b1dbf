"""One start of one worker: recorded, spawned on a socket of ours, and read until it is loaded."""

import asyncio
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import structlog

from skep.errors import InvalidInput
from skep.errors.hive import HandoffFailed, NotOurs, StartFailed
from skep.errors.process import ReportMalformed
from skep.hive.adapter.base import EngineAdapter, Order
from skep.hive.endpoint import Endpoint
from skep.hive.handoff import NONCE_VARIABLE, SpawnFolder, SpawnRecord
from skep.hive.oom import oom_kills
from skep.hive.plan import Plan
from skep.hive.steps import Step, reached
from skep.process import log as logs
from skep.process import reaper
from skep.process.child import Child, ChildSpec, spawn
from skep.process.identity import boot_id
from skep.process.owned import OwnedProcess
from skep.process.report import ReportPipe
from skep.process.socket import bind_listener
from skep.wire import start as start_wire
from skep.wire.start import Failed, Loading, Ready, Starting

log = structlog.get_logger(__name__)

_PRIVATE = ("SKEP_WORKER_", "SKEP_TEST_", "SKEP_HIVE_", "SKEP_QUEEN_", "SKEP_TOKEN")


class Running(msgspec.Struct, kw_only=True):
    """A process that was started, and what belongs to this start of it."""

    process: OwnedProcess
    endpoint: Endpoint
    report: ReportPipe | None
    log_path: Path
    log_from: int
    error_code: str = ""
    oom_kills_before: int = 0

    def log_tail(self, lines: int = 50) -> str:
        """Return the last lines that this start wrote."""
        return logs.tail_from(self.log_path, self.log_from, lines)

    async def end(self, grace_s: float) -> None:
        """End it with all that it started, wherever that went. Raises: ReapTimedOut."""
        await self.process.stop(grace_s)
        await asyncio.to_thread(reaper.kill_marked, NONCE_VARIABLE, self.endpoint.nonce)
        if self.report is not None:
            self.report.close()


async def launch(
    plan: Plan, replica_id: str, adapter: EngineAdapter, *, host: str, spawns: SpawnFolder, logs_folder: Path
) -> Running:
    """Record the spawn, then start the process. Raises: SpawnFailed, HandoffFailed, PortInUse, BindFailed."""
    ids = {"pool_id": plan.spec.id, "replica_id": replica_id}
    record = SpawnRecord(
        pool_id=plan.spec.id, replica_id=replica_id, nonce=secrets.token_hex(16), boot_id=boot_id()
    )
    spawns.write(record)
    reached(Step.SPAWN_RECORDED, **ids)
    log_path = logs_folder / f"{plan.spec.id}-{replica_id}.log"
    log_from, kills_before = logs.size(log_path), oom_kills()
    order, child, report = await _spawn(plan, replica_id, adapter, host, record.nonce, log_path)
    reached(Step.SPAWNED, **ids)
    try:
        spawns.write(msgspec.structs.replace(record, pid=child.pid, pid_started_at=child.started_at))
    except HandoffFailed as error:  # The nonce that was recorded before still leads to it.
        log.warning("spawn_pid_unrecorded", error=str(error), **ids)
    reached(Step.PID_RECORDED, **ids)
    return Running(
        process=child,
        endpoint=Endpoint(
            url=f"http://{_url_host(host)}:{order.port}",
            port=order.port,
            nonce=record.nonce,
            pgid=child.pgid,
            model=plan.model_name,
            slots=plan.spec.slots,
            token=order.token if adapter.takes_socket else "",
        ),
        report=report,
        log_path=log_path,
        log_from=log_from,
        oom_kills_before=kills_before,
    )


async def _spawn(
    plan: Plan, replica_id: str, adapter: EngineAdapter, host: str, nonce: str, log_path: Path
) -> tuple[Order, Child, ReportPipe | None]:
    """Start the program on a socket of ours; a foreign one binds by itself, and the kernel tells whose socket it is."""
    report = ReportPipe.open() if adapter.takes_socket else None
    try:
        with bind_listener(host) as listener:
            order = Order(
                pool=plan.spec,
                replica_id=replica_id,
                mask=plan.mask,
                program=plan.program,
                model_path=plan.model_path,
                model_name=plan.model_name,
                nonce=nonce,
                token=secrets.token_urlsafe(32),
                host=host,
                port=listener.getsockname()[1],
                listen_fd=listener.fileno() if report else None,
                report_fd=report.write_fd if report else None,
                chat_template=plan.chat_template,
            )
            how = adapter.launch(order)
            passed = (listener.fileno(), report.write_fd) if report else ()
            if report is None:
                listener.close()
            env = {**_environment(os.environ), **how.env, NONCE_VARIABLE: nonce}
            child = await spawn(ChildSpec(argv=how.argv, env=env, log_path=log_path, pass_fds=passed))
    except BaseException:
        if report is not None:
            report.close()
        raise
    if report is not None:
        report.close_write()
    return order, child, report


async def read_report(running: Running, *, on_progress: Callable[[float], None]) -> None:
    """Follow the worker's report until it is ready.

    Raises: StartFailed (it said why, or ended without a word), NotOurs (another's nonce), ReportMalformed.
    """
    if running.report is None:
        return
    async for line in running.report.lines():
        try:
            report = start_wire.decode(line)
        except InvalidInput as error:
            raise ReportMalformed(str(error), reason=str(error)) from error
        match report:
            case Starting():
                if report.nonce != running.endpoint.nonce:
                    raise NotOurs("the worker reports another's nonce", url=running.endpoint.url)
                reached(Step.REPORTED)
            case Loading():
                on_progress(report.progress)
            case Ready():
                reached(Step.LOADED)
                return
            case Failed():
                running.error_code = report.code
                raise StartFailed(report.message, cause=report.code, log_tail="")
    raise StartFailed("the worker closed its report before it was ready", cause="", log_tail="")


def _environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return what a worker inherits: everything but what is the hive's own business."""
    return {name: value for name, value in inherited.items() if not name.startswith(_PRIVATE)}


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
