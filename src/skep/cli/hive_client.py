"""Talking to a hive's API from a command."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from skep.errors import InvalidConfig, SkepError, Unavailable
from skep.web.client import make_client
from skep.wire.errors import decode_error
from skep.wire.sse import SseEvent, SseParser

TOTAL_S = 30.0


class HiveClient:
    """One session with one hive."""

    def __init__(self, url: str, token_file: str = "") -> None:
        self._url = url.rstrip("/")
        try:
            self._token = (
                Path(token_file).expanduser().read_text(encoding="utf-8").strip() if token_file else None
            )
        except OSError as error:
            raise InvalidConfig(f"cannot read the token file {token_file}: {error}") from error

    async def __aenter__(self) -> Self:
        """Open the session."""
        self._client = make_client(token=self._token, total_s=None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self._client.close()

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the answer's JSON. Raises: Unavailable (no hive there), SkepError (it refused)."""
        if body is None and method == "POST" and path.endswith(("/drain", "/reload")):
            body = {}
        try:
            timeout = aiohttp.ClientTimeout(total=TOTAL_S)
            async with self._client.request(method, self._url + path, json=body, timeout=timeout) as reply:
                raw = await reply.read()
                _check(reply.status, raw)
                return json.loads(raw)
        except (aiohttp.ClientConnectionError, TimeoutError) as error:
            raise self._gone() from error

    async def last_event(self, pool_id: str) -> int:
        """Return the id of the pool's newest event."""
        last = 0
        async for event in self.stream(f"/v2/pools/{pool_id}/events?follow=false"):
            last = int(event.id or last)
        return last

    async def states(self, pool_id: str, *, after: int) -> AsyncIterator[str]:
        """Yield the pool's states as they come, from events later than that one."""
        headers = {"last-event-id": str(after)}
        async for event in self.stream(f"/v2/pools/{pool_id}/events", headers=headers):
            if event.event == "pool":
                yield json.loads(event.data)["facts"]["state"]

    async def stream(self, path: str, *, headers: dict[str, str] | None = None) -> AsyncIterator[SseEvent]:
        """Yield server-sent events until the hive ends them. Raises: Unavailable, SkepError."""
        parser = SseParser()
        try:
            async with self._client.get(self._url + path, headers=headers) as reply:
                if reply.status != 200:  # noqa: PLR2004 - OK
                    _check(reply.status, await reply.read())
                async for chunk in reply.content.iter_any():
                    for event in parser.feed(chunk):
                        yield event
        except aiohttp.ClientError as error:
            raise self._gone() from error

    def _gone(self) -> Unavailable:
        return Unavailable(f"no hive answers at {self._url}: start one with `skep hive`, or give --hive URL")


def _check(status: int, body: bytes) -> None:
    if status < 400:  # noqa: PLR2004 - the client's and the server's errors begin there
        return
    error = decode_error(body)
    raise SkepError(error.message if error and error.message else f"the hive answers {status}")
