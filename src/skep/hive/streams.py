"""The routes that never end: a pool's events and its replicas' logs, as server-sent events."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from litestar import Request, get
from litestar.params import Parameter
from litestar.response import Stream

from skep.errors import InvalidInput
from skep.hive.document import Hive, PoolId, errors
from skep.process import log as logs
from skep.wire.sse import encode_comment, encode_event

PING_S = 10.0
LINES_DEFAULT, LINES_MAX = 100, 10_000
EVENT_STREAM = "text/event-stream"

Lines = Annotated[int, Parameter(ge=0, le=LINES_MAX, description="How many of the last lines")]


@get(
    "/v2/pools/{pool_id:str}/events",
    summary="A pool's events, as server-sent events",
    tags=["pools"],
    responses=errors(404),
    media_type=EVENT_STREAM,
)
async def events(
    core: Hive,
    pool_id: PoolId,
    request: Request[Any, Any, Any],
    follow: Annotated[bool, Parameter(description="false: what is kept, then end")] = True,
) -> Stream:
    """Kept events first, then new ones; `Last-Event-ID` resumes after one."""
    log = core.pools.get(pool_id).events
    given = request.headers.get("last-event-id", "0")
    if not given.isdecimal() or len(given) > 18:  # noqa: PLR2004 - fits 64 bits
        raise InvalidInput("Last-Event-ID must be the id of an event", param="last-event-id")
    found = log.follow(int(given)) if follow else _listed(log.since(int(given)))

    async def lines() -> AsyncIterator[bytes]:
        async for one in found:
            yield encode_event(msgspec.json.encode(one), event=one.kind, id=str(one.id))

    return Stream(with_pings(lines()), media_type=EVENT_STREAM)


@get(
    "/v2/pools/{pool_id:str}/logs",
    summary="The log lines of a pool's replicas, as server-sent events",
    tags=["pools"],
    responses=errors(404),
    media_type=EVENT_STREAM,
)
async def pool_logs(
    core: Hive,
    pool_id: PoolId,
    lines: Lines = LINES_DEFAULT,
    follow: Annotated[bool, Parameter(description="Go on with new lines")] = False,
    replica: Annotated[str | None, Parameter(max_length=64)] = None,
) -> Stream:
    """Each event's name is the replica's id. Also of replicas that are gone."""
    core.pools.get(pool_id)
    files = core.log_files(pool_id, replica)

    async def kept() -> AsyncIterator[bytes]:
        for replica_id, path in files.items():
            for line in await asyncio.to_thread(logs.tail, path, lines):
                yield encode_event(line.encode(), event=replica_id)

    async def followed() -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue(1000)

        async def read(replica_id: str) -> None:
            async for line in logs.follow(files[replica_id], lines=lines):
                await queue.put(encode_event(line.encode(), event=replica_id))

        async with asyncio.TaskGroup() as tasks:
            readers = [tasks.create_task(read(one)) for one in files]
            try:
                while True:
                    yield await queue.get()
            finally:
                for one in readers:
                    one.cancel()

    return Stream(with_pings(followed()) if follow else kept(), media_type=EVENT_STREAM)


async def with_pings(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pass lines on, with a comment whenever nothing came for a while: so a dead connection is noticed."""
    pending: asyncio.Future[bytes] | None = None
    yield encode_comment("open")
    try:
        while True:
            pending = pending or asyncio.ensure_future(anext(lines))
            done, _ = await asyncio.wait({pending}, timeout=PING_S)
            if not done:
                yield encode_comment("ping")
                continue
            line, pending = pending.result(), None
            yield line
    except StopAsyncIteration:
        return
    finally:
        if pending is not None:
            pending.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await pending
        await lines.aclose()  # type: ignore[attr-defined]


async def _listed(found: list[Any]) -> AsyncIterator[Any]:
    for one in found:
        yield one
