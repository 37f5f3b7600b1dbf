"""One stream of a worker, event by event, with the time at which each arrived."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self

import aiohttp

from skep.errors.harness import HarnessError, WorkerHttpFailed
from skep.wire import events as wire
from skep.wire.events import InferenceEvent
from skep.wire.sse import SseEvent, SseParser

_FOREIGN = (aiohttp.ClientError, ConnectionError)


class SseStream:
    """An asynchronous iterator of raw events; ends when the server ends the response.

    Leaving the context, or `aclose`, closes the connection: the worker sees its client go.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        *,
        explain: Callable[[], Awaitable[HarnessError | None]] | None = None,
    ) -> None:
        """`explain` may say why a connection broke: the process died."""
        self._response = response
        self._explain = explain
        self._parser = SseParser(strict=True)
        self._ready: list[SseEvent] = []
        self._ended = False

    @property
    def headers(self) -> dict[str, str]:
        """Return the response's headers, in lower case."""
        return {name.lower(): value for name, value in self._response.headers.items()}

    async def __anext__(self) -> SseEvent:
        """Return the next event. Raises: MalformedStream, WorkerHttpFailed or WorkerDied (the connection broke)."""
        while not self._ready:
            if self._ended:
                raise StopAsyncIteration
            try:
                chunk = await self._response.content.readany()
            except _FOREIGN as error:
                raise await self._broken(error) from error
            if chunk:
                self._ready = self._parser.feed(chunk, time.monotonic())
            else:
                self._ended = True
                self._parser.close()
        return self._ready.pop(0)

    async def inference_events(self) -> AsyncIterator[InferenceEvent]:
        """Yield the typed events of `/execute`. Raises: as iterating, MalformedStream."""
        async for event in self:
            yield wire.decode(event)

    async def aclose(self) -> None:
        """Close the connection at once."""
        self._response.close()

    async def _broken(self, error: BaseException) -> HarnessError:
        reason = await self._explain() if self._explain is not None else None
        return reason or WorkerHttpFailed(
            f"the stream broke: {error!r}",
            status=self._response.status,
            error=None,
            path=self._response.url.path,
        )

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
