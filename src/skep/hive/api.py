"""The hive's own API: typed by msgspec, documented at `/schema`, errors as `wire.errors` has them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from litestar import Litestar, Request, Response, delete, get, post
from litestar.di import NamedDependency, Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.params import JSONBody, Parameter
from litestar.response import Stream

from skep import __version__
from skep.errors import InvalidInput
from skep.hive.core import Core
from skep.hive.declared import Wish
from skep.hive.devices.cpu import cores
from skep.hive.document import complete
from skep.hive.view import pool_view
from skep.process import log as logs
from skep.spec.ids import ID_PATTERN
from skep.telemetry.metrics import CONTENT_TYPE
from skep.web.errors import exception_handlers
from skep.wire.errors import ErrorBody
from skep.wire.hive import (
    Accepted,
    DeclareRequest,
    DeviceList,
    DrainRequest,
    HealthReply,
    PoolList,
    PoolView,
    ReadyReply,
    ReloadRequest,
    StateReply,
    WhyReply,
)
from skep.wire.sse import encode_comment, encode_event

BODY_BYTES_MAX = 1024 * 1024
PING_S = 10.0
LINES_DEFAULT, LINES_MAX = 100, 10_000
EVENT_STREAM = "text/event-stream"
ERRORS = {
    400: "The request is wrong; `violations` names each field",
    401: "The bearer token is missing or wrong",
    403: "This machine's own configuration forbids it",
    404: "There is no such pool here",
    409: "It cannot be done in the pool's present state, or the declaration is older than the present one",
    415: "The body is not JSON",
    503: "Not now; later may work",
}

Hive = NamedDependency[Core]
PoolId = Annotated[str, Parameter(description="The pool's id", pattern=ID_PATTERN, max_length=64)]
Lines = Annotated[int, Parameter(ge=0, le=LINES_MAX, description="How many of the last lines")]


def _errors(*more: int) -> dict[int, ResponseSpec]:
    """Return the error answers of a route, for its document."""
    return {
        status: ResponseSpec(data_container=ErrorBody, description=ERRORS[status], generate_examples=False)
        for status in (400, 401, *more)
    }


@get("/health", summary="Whether the daemon runs; needs no token", tags=["hive"])
async def health(core: Hive) -> HealthReply:
    """Answer at once, whatever else goes on."""
    return HealthReply(status="ok", version=__version__, instance=core.settings.instance)


@get(
    "/ready",
    summary="Whether every wanted pool serves",
    tags=["hive"],
    responses={
        **_errors(),
        503: ResponseSpec(ReadyReply, description="Some do not", generate_examples=False),
    },
)
async def ready(core: Hive) -> Response[ReadyReply]:
    """200 when they do, 503 with each one's cause when not."""
    waiting = core.waiting()
    return Response(ReadyReply(ready=not waiting, waiting=waiting), status_code=503 if waiting else 200)


@get("/metrics", summary="Prometheus metrics", tags=["hive"], responses=_errors(), media_type="text/plain")
async def metrics(core: Hive) -> Response[bytes]:
    """Return the exposition."""
    return Response(core.metrics(), media_type=CONTENT_TYPE.decode())


@get("/v2/devices", summary="The devices of this machine", tags=["devices"], responses=_errors(503))
async def devices(core: Hive) -> DeviceList:
    """Looked at anew."""
    found = await core.node.inventory.refresh()
    return DeviceList(devices=found, cpu_cores=cores(), held=core.node.inventory.held())


@get("/v2/state", summary="The whole node at a glance", tags=["hive"], responses=_errors())
async def state(core: Hive) -> StateReply:
    """Devices, pools, and whether a queen knows of them."""
    return core.state()


@get("/v2/pools", summary="Every pool", tags=["pools"], responses=_errors())
async def pools(core: Hive) -> PoolList:
    """By id."""
    return PoolList(pools=tuple(pool_view(one) for one in core.pools.ordered()))


@post(
    "/v2/pools",
    summary="Declare a pool",
    tags=["pools"],
    responses=_errors(403, 404, 409, 503),
    status_code=202,
)
async def declare(core: Hive, data: JSONBody[DeclareRequest]) -> Accepted:
    """Declaring the same again changes nothing; a changed declaration of a loaded pool takes effect by a reload."""
    wish = Wish.LOADED if data.preload else Wish.OFFLINE
    pool = await core.pools.declare(data.pool, generation=data.generation, wish=wish)
    if data.preload:
        await pool.preload()
    return accepted(pool.id, "declare", pool.state)


@get("/v2/pools/{pool_id:str}", summary="One pool", tags=["pools"], responses=_errors(404))
async def pool(core: Hive, pool_id: PoolId) -> PoolView:
    """State, last error with its cause, replicas, jobs, engine."""
    return pool_view(core.pools.get(pool_id))


@post(
    "/v2/pools/{pool_id:str}/preload",
    summary="Load a pool",
    tags=["pools"],
    responses=_errors(404, 409, 503),
    status_code=202,
)
async def preload(core: Hive, pool_id: PoolId) -> Accepted:
    """Idempotent: a pool that is loaded or loading goes on."""
    found = core.pools.get(pool_id)
    await found.preload()
    return accepted(pool_id, "preload", found.state)


@post(
    "/v2/pools/{pool_id:str}/drain",
    summary="End a pool's jobs, then its replicas",
    tags=["pools"],
    responses=_errors(404, 503),
    status_code=202,
)
async def drain(core: Hive, pool_id: PoolId, data: JSONBody[DrainRequest | None] = None) -> Accepted:
    """Running jobs end by themselves until `deadline_ms`, then they are cancelled."""
    found = core.pools.get(pool_id)
    await found.drain((data or DrainRequest()).deadline_ms / 1000)
    return accepted(pool_id, "drain", found.state)


@post(
    "/v2/pools/{pool_id:str}/reload",
    summary="Put another model in its place",
    tags=["pools"],
    responses=_errors(403, 404, 409, 503),
    status_code=202,
)
async def reload(core: Hive, pool_id: PoolId, data: JSONBody[ReloadRequest | None] = None) -> Accepted:
    """Beside the old one where memory allows; a failure restores the old one."""
    found = core.pools.get(pool_id)
    asked = data or ReloadRequest()
    core.pools.check_model(found, asked.model)
    await found.reload(asked.model, asked.deadline_ms / 1000)
    return accepted(pool_id, "reload", found.state)


@post(
    "/v2/pools/{pool_id:str}/reset",
    summary="Forgive failures, try at once",
    tags=["pools"],
    responses=_errors(404, 409, 503),
    status_code=202,
)
async def reset(core: Hive, pool_id: PoolId) -> Accepted:
    """Close the breaker by hand."""
    found = core.pools.get(pool_id)
    await found.reset()
    return accepted(pool_id, "reset", found.state)


@delete(
    "/v2/pools/{pool_id:str}",
    summary="End and forget a pool",
    tags=["pools"],
    responses=_errors(404, 503),
    status_code=202,
)
async def remove(
    core: Hive,
    pool_id: PoolId,
    deadline_ms: Annotated[int, Parameter(ge=0, le=86_400_000)] = 30_000,
) -> Accepted:
    """Jobs get until the deadline."""
    found = await core.pools.remove(pool_id, deadline_ms / 1000)
    return accepted(pool_id, "remove", found.state)


@get(
    "/v2/pools/{pool_id:str}/why",
    summary="Why a pool is in its state",
    tags=["pools"],
    responses=_errors(404),
)
async def why(core: Hive, pool_id: PoolId) -> WhyReply:
    """The last verdicts of the restart policy with their inputs, and the last fit."""
    return core.why(pool_id)


@get(
    "/v2/pools/{pool_id:str}/events",
    summary="A pool's events, as server-sent events",
    tags=["pools"],
    responses=_errors(404),
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
    responses=_errors(404),
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


def accepted(pool_id: str, operation: str, state: str) -> Accepted:
    """Return the answer to long work: where to watch it."""
    return Accepted(
        pool_id=pool_id,
        operation=operation,
        state=str(state),
        watch=f"/v2/pools/{pool_id}/events",
        status=f"/v2/pools/{pool_id}",
    )


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


ROUTES: list[Any] = [
    health, ready, metrics, devices, state, pools, declare, pool, preload, drain, reload, reset, remove, why, events,
    pool_logs,
]  # fmt: skip


def make_api(core: Core) -> Litestar:
    """Return the application."""
    app = Litestar(
        route_handlers=ROUTES,
        dependencies={"core": Provide(lambda: core, sync_to_thread=False)},
        exception_handlers=exception_handlers(),
        logging_config=None,
        request_max_body_size=BODY_BYTES_MAX,
        openapi_config=OpenAPIConfig(
            title="skep hive",
            version=__version__,
            path="/schema",
            render_plugins=[JsonRenderPlugin(path="/")],
        ),
    )
    return complete(app)
