"""The thread that owns an engine's core: it takes commands from an inbox between two steps, and steps while there is work."""

import asyncio
import concurrent.futures
import contextlib
import logging
import queue
import threading
from collections.abc import Callable

from skep.errors import SkepError
from skep.errors.runtime import Closed, EngineFault
from skep.runtime.backend import BackendModel
from skep.runtime.core import EngineCore
from skep.runtime.options import EngineOptions

IDLE_WAIT_S_MAX = 0.05  # While jobs wait for something: how late a deadline or a stall may be noticed.
CLOSE_S_MAX = 10.0
_log = logging.getLogger(__name__)


class Driver:
    """Runs one core. `gate` is held where a job is added and where the end begins, so that none slips in between."""

    def __init__(self, model: BackendModel, options: EngineOptions, *, clock: Callable[[], float]) -> None:
        self.core = EngineCore(model, options, clock=clock, poll=self._read_inbox)
        self.gate = threading.Lock()
        self.is_closed = False
        self._inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread: threading.Thread | None = None
        self._idle_watchers: list[Callable[[], None]] = []

    @property
    def is_running(self) -> bool:
        """True from `start` until the end begins."""
        return self._thread is not None and not self.is_closed

    def start(self) -> None:
        """Start the thread and open the core in it. Raises: InsufficientMemory, InvalidInput, Closed."""
        if self.is_closed or self._thread is not None:
            raise Closed("an engine starts once")
        self._thread = threading.Thread(target=self._main, name="skep-engine", daemon=True)
        self._thread.start()
        try:
            self._started.result()
        except SkepError:
            self.is_closed = True
            self._thread.join()
            raise

    def post(self, command: Callable[[], object]) -> None:
        """Have `command` called in the thread, between two steps. Safe from any thread."""
        self._inbox.put(command)

    def close(self) -> None:
        """End the thread and wait for it. Raises: EngineFault when the backend does not come back in time."""
        with self.gate:
            self.is_closed = True
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        self.post(lambda: None)
        self.core.interrupt()
        thread.join(CLOSE_S_MAX)
        if thread.is_alive():
            raise EngineFault(f"the backend did not come back from a decode within {CLOSE_S_MAX:g} s")

    async def is_idle_within(self, seconds: float) -> bool:
        """Wait until no job is left, that long at most; True when it came to that."""
        if self.is_closed:
            return not self.core.jobs
        loop = asyncio.get_running_loop()
        idle = loop.create_future()

        def resolve() -> None:
            if not idle.done():
                idle.set_result(None)

        def watcher() -> None:
            with contextlib.suppress(RuntimeError):  # The loop was closed: nobody waits any more.
                loop.call_soon_threadsafe(resolve)

        def forget() -> None:
            if watcher in self._idle_watchers:
                self._idle_watchers.remove(watcher)

        self.post(lambda: self._idle_watchers.append(watcher))
        try:
            async with asyncio.timeout(seconds):
                await idle
        except TimeoutError:
            return False
        finally:
            self.post(forget)
        return True

    # In the thread -------------------------------------------------------------------------------------------------

    def _main(self) -> None:
        core = self.core
        try:
            core.open()
        except BaseException as error:  # noqa: BLE001 - handed to `start`, which raises it
            self._started.set_exception(error)
            return
        self._started.set_result(None)
        try:
            self._loop()
        except Exception as error:  # noqa: BLE001 - a supervisor: our mistake must not leave readers waiting
            _log.exception("the engine's thread failed")
            core.give_up(EngineFault(f"the engine failed: {error!r}", cause=error))
        finally:
            with self.gate:
                self.is_closed = True
            core.close(Closed("the engine was closed before the job ended"))
            self._tell_idle()

    def _loop(self) -> None:
        core, inbox = self.core, self._inbox
        while not self.is_closed:
            self._read_inbox()
            if core.step():
                continue
            self._tell_idle()
            with contextlib.suppress(queue.Empty):
                inbox.get(timeout=IDLE_WAIT_S_MAX if core.jobs else None)()
                core.flush()

    def _read_inbox(self) -> None:
        inbox = self._inbox
        if inbox.empty():
            return
        while not inbox.empty():
            inbox.get_nowait()()
        self.core.flush()  # Ends are told now, not after a step that may be long.

    def _tell_idle(self) -> None:
        if self.core.jobs:
            return
        while self._idle_watchers:
            self._idle_watchers.pop()()
