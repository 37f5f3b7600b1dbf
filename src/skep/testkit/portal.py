"""An event loop in a thread of its own: what a scenario started goes on between its steps."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")
CALL_S_MAX = 120.0
CLOSE_S_MAX = 5.0


class Portal:
    """Runs coroutines for code that is not async. The thread starts with the first call, and ends with `close`."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_open(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None

    def call(self, coroutine: Coroutine[Any, Any, T], *, within_s: float = CALL_S_MAX) -> T:
        """Run a coroutine to its end and return what it returns. Raises: TimeoutError, and what it raises."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._running())
        try:
            return future.result(within_s)
        except concurrent.futures.TimeoutError:
            if future.done():
                raise
            raise TimeoutError(f"{coroutine!r} did not end within {within_s:g} s") from None
        finally:
            future.cancel()

    def close(self) -> None:
        """Cancel what still runs, wait for it, end the thread; closing twice is fine."""
        loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CLOSE_S_MAX)

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=_serve, args=(self._loop,), name="skep-scenario", daemon=True
            )
            self._thread.start()
        return self._loop

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), CLOSE_S_MAX))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
