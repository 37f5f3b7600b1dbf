"""The worker's process: in which order things start and stop, its signals, and the pipes of its owner."""

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress

import structlog

from skep.errors import InvalidConfig, SkepError
from skep.process.socket import bind_listener
from skep.runtime.engine import Engine
from skep.telemetry.logs import configure
from skep.web.auth import BearerAuth, require_token_off_loopback
from skep.web.client import describe_token
from skep.web.limits import Limits
from skep.web.server import HttpServer, inherit, run
from skep.worker.app import WorkerApp
from skep.worker.health import Health
from skep.worker.options import WorkerOptions, check
from skep.worker.report import StartReporter, is_open
from skep.worker.service import Service
from skep.worker.start import open_engine, prove, served_name

log = structlog.get_logger(__name__)

EXIT_OK, EXIT_FAILED = 0, 1
SWITCH_INTERVAL_S = 5e-4
"""How long a Python thread may hold the interpreter while another waits: the engine's and the event loop's take
turns. Measured in this project: an 8-sequence step beside a busy thread takes 1.4 ms instead of 6.2 ms."""

GC_THRESHOLDS = (10_000, 20, 20)
FAULT_POLL_S = 0.2
STALL_MARGIN_S = 2.0
"""How much later than the engine cancels a stalled reader's job its connection is reset."""

CUT_OFF_S = 0.5
ORPHAN_GRACE_S = 3.0


def run_worker(options: WorkerOptions) -> int:
    """Serve until told to stop; return the exit code. A failed start is reported, and is one JSON line on stderr."""
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    configure("worker", worker_id=options.worker_id, instance=options.nonce)
    reporter = StartReporter(options.report_fd if is_open(options.report_fd) else None)
    reporter.starting(options.nonce)
    try:
        check(options)
        for flag, fd in (("--report-fd", options.report_fd), ("--exit-with-fd", options.exit_with_fd)):
            if not is_open(fd):
                raise InvalidConfig(f"{flag} {fd} is no open file descriptor")
        require_token_off_loopback(options.host, options.token)
        listener = _listener(options)
        return run(_Process(options, reporter).serve(listener))
    except SkepError as error:
        reporter.failed(code=error.code, message=str(error), retryable=error.retryable)
        return EXIT_FAILED
    finally:
        reporter.close()


def _settle_memory() -> None:
    """Take what stays for good out of the collector's sight: a full collection of it else stops every stream for 25 to 100 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _listener(options: WorkerOptions) -> socket.socket:
    if options.listen_fd is None:
        return bind_listener(options.host, options.port)
    try:
        listener = inherit(options.listen_fd)
        is_listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise InvalidConfig(f"--listen-fd {options.listen_fd} is no socket: {error}") from error
    if not is_listening:
        listener.close()
        raise InvalidConfig(f"--listen-fd {options.listen_fd} is a socket that does not listen")
    return listener


class _Process:
    """One run. `_stop` is set by a signal, by an owner that is gone, or by an engine that broke."""

    def __init__(self, options: WorkerOptions, reporter: StartReporter) -> None:
        self._options, self._reporter = options, reporter
        self._service = Service(options, served_name(options))
        self._stop = asyncio.Event()
        self._signals = 0

    async def serve(self, listener: socket.socket) -> int:
        """Accept, load, prove, report, serve, drain. Raises: SkepError when it cannot start."""
        options, service = self._options, self._service
        self._watch_signals()
        self._watch_owner()
        health = Health(service)
        app = BearerAuth(WorkerApp(service, health), options.token)
        limits = Limits(
            body_bytes_max=options.body_bytes_max,
            connections_max=options.connections_max,
            head_s=options.head_s,
            body_s=options.body_s,
            idle_s=options.idle_s,
            stall_s=options.stall_s + STALL_MARGIN_S,
            send_buffer_bytes=64 * 1024,
            write_buffer_bytes=32 * 1024,
        )
        try:
            async with HttpServer(app, listen=[listener], limits=limits, grace_s=CUT_OFF_S) as server:
                starting = asyncio.create_task(self._start(), name="start")
                stopping = asyncio.create_task(self._stop.wait(), name="stop")
                await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not starting.done():
                    starting.cancel()
                    await asyncio.gather(starting, return_exceptions=True)
                    stopping.cancel()
                    return EXIT_OK
                await starting
                _settle_memory()
                self._reporter.ready(server.ports[0])
                log.info(
                    "ready",
                    port=server.ports[0],
                    model=service.served_name,
                    token_id=describe_token(options.token),
                )
                code = await self._until_stopped(stopping)
                await self._drain()
                return code
        finally:
            if service.is_resident:
                await self._close(service.engine)

    async def _start(self) -> None:
        engine = await open_engine(self._service, self._reporter.loading)
        self._service.metrics.watch(engine.stats, self._service.memory)
        await prove(self._service)

    async def _until_stopped(self, stopping: "asyncio.Task[bool]") -> int:
        """Wait for the order to stop, or for an engine that can no longer decode, or weights that are others now."""
        while not stopping.done():
            await asyncio.wait({stopping}, timeout=FAULT_POLL_S)
            fault = self._service.fault()
            if fault is not None:
                stopping.cancel()
                self._reporter.failed(code=fault.code, message=str(fault), retryable=fault.retryable)
                return EXIT_FAILED
        return EXIT_OK

    async def _drain(self) -> None:
        """End what is in hand within `stop_s`, each with its terminal event."""
        with suppress(SkepError):
            outcome = await self._service.drain(self._options.stop_s if self._signals <= 1 else 0.0)
            log.info("drained", finished=outcome.jobs_finished, cancelled=outcome.jobs_cancelled)

    async def _close(self, engine: Engine) -> None:
        try:
            await engine.aclose()
            engine.model.close()
        except SkepError as error:
            log.error("close_failed", code=error.code, error=str(error))  # noqa: TRY400 - the message says it all

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        self._signals += 1
        self._stop.set()
        if self._signals > 1 and self._service.is_resident:
            for job in self._service.engine.jobs():
                job.cancel()

    def _watch_owner(self) -> None:
        """Stop when the other end of `--exit-with-fd` closes, also when the event loop no longer turns."""
        fd = self._options.exit_with_fd
        if fd is None:
            return
        loop = asyncio.get_running_loop()

        def watch() -> None:
            with suppress(OSError):
                while os.read(fd, 1):
                    pass
            with suppress(RuntimeError):  # The loop is closed: the process is ending already.
                loop.call_soon_threadsafe(self._owner_gone)
            time.sleep(ORPHAN_GRACE_S)
            os._exit(EXIT_FAILED)

        threading.Thread(target=watch, name="owner-watch", daemon=True).start()

    def _owner_gone(self) -> None:
        self._signals = 2
        self._stop.set()
