"""The hive's own API: typed by msgspec, documented at `/schema`, errors as `wire.errors` has them."""

from typing import Annotated, Any

from litestar import Litestar, Response, delete, get, post
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.params import JSONBody, Parameter

from skep import __version__
from skep.hive.core import Core
from skep.hive.declared import Wish
from skep.hive.devices.cpu import cores
from skep.hive.document import Hive, PoolId, complete, errors
from skep.hive.streams import events, pool_logs
from skep.hive.view import pool_view
from skep.telemetry.metrics import CONTENT_TYPE
from skep.web.allow import allow_every_method
from skep.web.errors import exception_handlers
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

BODY_BYTES_MAX = 1024 * 1024


@get("/health", summary="Whether the daemon runs; needs no token", tags=["hive"])
async def health(core: Hive) -> HealthReply:
    """Answer at once, whatever else goes on."""
    return HealthReply(status="ok", version=__version__, instance=core.settings.instance)


@get(
    "/ready",
    summary="Whether every wanted pool serves",
    tags=["hive"],
    responses={
        **errors(),
        503: ResponseSpec(ReadyReply, description="Some do not", generate_examples=False),
    },
)
async def ready(core: Hive) -> Response[ReadyReply]:
    """200 when they do, 503 with each one's cause when not."""
    waiting = core.waiting()
    return Response(ReadyReply(ready=not waiting, waiting=waiting), status_code=503 if waiting else 200)


@get("/metrics", summary="Prometheus metrics", tags=["hive"], responses=errors(), media_type="text/plain")
async def metrics(core: Hive) -> Response[bytes]:
    """Return the exposition."""
    return Response(core.metrics(), media_type=CONTENT_TYPE.decode())


@get("/v2/devices", summary="The devices of this machine", tags=["devices"], responses=errors(503))
async def devices(core: Hive) -> DeviceList:
    """Looked at anew."""
    found = await core.node.inventory.refresh()
    return DeviceList(devices=found, cpu_cores=cores(), held=core.node.inventory.held())


@get("/v2/state", summary="The whole node at a glance", tags=["hive"], responses=errors())
async def state(core: Hive) -> StateReply:
    """Devices, pools, and whether a queen knows of them."""
    return core.state()


@get("/v2/pools", summary="Every pool", tags=["pools"], responses=errors())
async def pools(core: Hive) -> PoolList:
    """By id."""
    return PoolList(pools=tuple(pool_view(one) for one in core.pools.ordered()))


@post(
    "/v2/pools",
    summary="Declare a pool",
    tags=["pools"],
    responses=errors(403, 404, 409, 503),
    status_code=202,
)
async def declare(core: Hive, data: JSONBody[DeclareRequest]) -> Accepted:
    """Declaring the same again changes nothing; a changed declaration of a loaded pool takes effect by a reload."""
    wish = Wish.LOADED if data.preload else Wish.OFFLINE
    pool = await core.pools.declare(data.pool, generation=data.generation, wish=wish)
    if data.preload:
        await pool.preload()
    return accepted(pool.id, "declare", pool.state)


@get("/v2/pools/{pool_id:str}", summary="One pool", tags=["pools"], responses=errors(404))
async def pool(core: Hive, pool_id: PoolId) -> PoolView:
    """State, last error with its cause, replicas, jobs, engine."""
    return pool_view(core.pools.get(pool_id))


@post(
    "/v2/pools/{pool_id:str}/preload",
    summary="Load a pool",
    tags=["pools"],
    responses=errors(404, 409, 503),
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
    responses=errors(404, 503),
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
    responses=errors(403, 404, 409, 503),
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
    responses=errors(404, 409, 503),
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
    responses=errors(404, 503),
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
    responses=errors(404),
)
async def why(core: Hive, pool_id: PoolId) -> WhyReply:
    """The last verdicts of the restart policy with their inputs, and the last fit."""
    return core.why(pool_id)


def accepted(pool_id: str, operation: str, state: str) -> Accepted:
    """Return the answer to long work: where to watch it."""
    return Accepted(
        pool_id=pool_id,
        operation=operation,
        state=str(state),
        watch=f"/v2/pools/{pool_id}/events",
        status=f"/v2/pools/{pool_id}",
    )


ROUTES: list[Any] = [
    health, ready, metrics, devices, state, pools, declare, pool, preload, drain, reload, reset, remove, why, events,
    pool_logs,
]  # fmt: skip


def make_api(core: Core) -> Litestar:
    """Return the application."""
    app = Litestar(
        route_handlers=ROUTES,
        dependencies={"core": Provide(lambda: core, sync_to_thread=False)},
        before_send=[allow_every_method],
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
