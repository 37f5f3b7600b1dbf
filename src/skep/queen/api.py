"""The admin API: nodes register and beat here, people look and act here. Documented at /schema."""

from typing import Annotated, Any

from litestar import Litestar, Request, Response, delete, get, post
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.params import Parameter

from skep import __version__
from skep.queen.adminauth import Sessions
from skep.queen.core import Core
from skep.queen.forward import FORWARDED
from skep.queen.views import ModelView, NodeView, PoolView, model_views, node_view, pool_views
from skep.telemetry.metrics import CONTENT_TYPE
from skep.web.allow import allow_every_method
from skep.web.errors import exception_handlers
from skep.wire import tolerant
from skep.wire.node import Heartbeat, HeartbeatReply, RegisterReply, RegisterRequest

BODY_BYTES_MAX = 8 << 20
NodeId = Annotated[str, Parameter(max_length=64, description="The node's id")]


@get("/health", summary="Whether the daemon runs; needs no token", tags=["queen"])
async def health(core: Core) -> dict[str, Any]:
    """Answer at once, whatever else goes on."""
    return {"status": core.status(), "version": __version__, "instance": core.instance, **core.health_facts()}


@get("/ready", summary="Whether any model is served", tags=["queen"], responses={})
async def ready(core: Core) -> Response[dict[str, Any]]:
    """200 when at least one model has a ready replica, else 503."""
    served = [name for name in core.routes.models() if core.routes.table[name].replicas]
    body = {"ready": bool(served), "models": served}
    return Response(body, status_code=200 if served else 503)


@get("/metrics", summary="Prometheus metrics", tags=["queen"], media_type="text/plain")
async def metrics(core: Core) -> Response[bytes]:
    """Return the exposition."""
    return Response(core.metrics.text(), media_type=CONTENT_TYPE.decode())


@post("/v2/nodes/register", summary="A node presents itself", tags=["nodes"], status_code=200)
async def register(core: Core, request: Request[Any, Any, Any]) -> RegisterReply:
    """Idempotent; again after a restart of the hive, or after a 404 to a heartbeat."""
    decoded = tolerant.decode(await request.body(), RegisterRequest)
    core.count_unknown(decoded.unknown_fields)
    node = core.register(decoded.message, is_forwarded=FORWARDED in request.headers)
    return RegisterReply(node_id=node.node_id, version=__version__, next_heartbeat_ms=core.heartbeat_ms)


@post("/v2/nodes/{node_id:str}/heartbeat", summary="A node's present state", tags=["nodes"], status_code=200)
async def heartbeat(core: Core, node_id: NodeId, request: Request[Any, Any, Any]) -> HeartbeatReply:
    """404 asks the hive to register again."""
    decoded = tolerant.decode(await request.body(), Heartbeat)
    core.count_unknown(decoded.unknown_fields)
    wanted = core.heartbeat(node_id, decoded.message, is_forwarded=FORWARDED in request.headers)
    return HeartbeatReply(next_heartbeat_ms=core.heartbeat_ms, wanted=wanted)


@delete("/v2/nodes/{node_id:str}", summary="A node leaves", tags=["nodes"], status_code=204)
async def leave(core: Core, node_id: NodeId, request: Request[Any, Any, Any]) -> None:
    """Forget it; its workers are its hive's own affair."""
    core.leave(node_id, is_forwarded=FORWARDED in request.headers)


@get("/v2/nodes", summary="Every node", tags=["nodes"])
async def nodes(core: Core) -> list[NodeView]:
    """Nodes by id."""
    known = core.registry.nodes
    return [node_view(core.registry, known[node_id]) for node_id in sorted(known)]


@post("/v2/nodes/{node_id:str}/cordon", summary="No new work for a node", tags=["nodes"], status_code=200)
async def cordon(core: Core, node_id: NodeId) -> NodeView:
    """What runs there goes on."""
    return node_view(core.registry, await core.cordon(node_id, is_cordoned=True))


@post("/v2/nodes/{node_id:str}/uncordon", summary="New work again", tags=["nodes"], status_code=200)
async def uncordon(core: Core, node_id: NodeId) -> NodeView:
    """Undo a cordon."""
    return node_view(core.registry, await core.cordon(node_id, is_cordoned=False))


@get("/v2/pools", summary="Every pool", tags=["pools"])
async def pools(core: Core) -> list[PoolView]:
    """Pools with their replicas, as the last heartbeats told."""
    return pool_views(core.registry, now_s=core.now_s(), waiting=core.waiting())


@get("/v2/models", summary="Every model's name and what serves it", tags=["models"])
async def models(core: Core) -> list[ModelView]:
    """Names without aliases."""
    return model_views(core.routes, core.waiting())


ROUTES: list[Any] = [
    health, ready, metrics, register, heartbeat, leave, nodes, cordon, uncordon, pools, models
]  # fmt: skip


def make_api(core: Core, sessions: Sessions, *more: Any) -> Litestar:
    """Return the application. `more`: handlers of other files."""
    return Litestar(
        route_handlers=[*ROUTES, *more],
        dependencies={
            "core": Provide(lambda: core, sync_to_thread=False),
            "sessions": Provide(lambda: sessions, sync_to_thread=False),
        },
        before_send=[allow_every_method],
        exception_handlers=exception_handlers(),
        logging_config=None,
        request_max_body_size=BODY_BYTES_MAX,
        openapi_config=OpenAPIConfig(
            title="skep queen",
            version=__version__,
            path="/schema",
            render_plugins=[JsonRenderPlugin(path="/")],
        ),
    )
