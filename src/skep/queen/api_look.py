"""The dashboard's routes: the page, logging in, the live overview, a hive's logs and reasons, a chat to try a model."""

import asyncio
from collections.abc import AsyncGenerator
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import Cookie
from litestar.params import Parameter
from litestar.response import Stream

from skep.errors.queen import HiveRefused, NodeUnknown
from skep.errors.web import Unauthorized
from skep.queen.adminauth import COOKIE, SESSION_S_MAX, Sessions, session_of
from skep.queen.core import Core
from skep.queen.overview import Overview, overview
from skep.queen.proofs import ProofView, newest
from skep.wire.sse import encode_comment, encode_event

EVERY_S, SETTLE_S = 1.0, 0.1
STREAMS_MAX = 64
LOG_BYTES_MAX = 256 * 1024
_CSP = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
_CSP += "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
_FILES = {"index.html": "text/html", "app.js": "text/javascript", "style.css": "text/css"}

NodeId = Annotated[str, Parameter(max_length=64)]
PoolId = Annotated[str, Parameter(max_length=64)]


class Login(msgspec.Struct, frozen=True):
    """What the login form sends."""

    token: str


def page(name: str) -> Response[bytes]:
    """Return one of the page's files from the package."""
    content = (files("skep.queen.dashboard") / name).read_bytes()
    headers = {"content-security-policy": _CSP, "cache-control": "no-cache"}
    return Response(content, media_type=f"{_FILES[name]}; charset=utf-8", headers=headers)


@get("/", include_in_schema=False)
async def index() -> Response[bytes]:
    """The page."""
    return page("index.html")


@get("/app.js", include_in_schema=False)
async def script() -> Response[bytes]:
    """Its script."""
    return page("app.js")


@get("/style.css", include_in_schema=False)
async def style() -> Response[bytes]:
    """Its looks."""
    return page("style.css")


@get("/session", include_in_schema=False)
async def session(sessions: Sessions, request: Request[Any, Any, Any]) -> dict[str, bool]:
    """Whether the browser has to log in."""
    actor, _ = sessions.actor(list(request.scope["headers"]))
    return {"open": sessions.is_open, "known": bool(actor)}


@post("/login", include_in_schema=False, status_code=200)
async def login(sessions: Sessions, core: Core, data: Login) -> Response[dict[str, bool]]:
    """Trade the admin token for a session."""
    found = sessions.login(data.token)
    if found is None:
        raise Unauthorized("this is not the admin token (or too many were tried; wait a minute)")
    cookie = Cookie(
        key=COOKIE,
        value=found,
        httponly=True,
        samesite="strict",
        secure=core.is_tls,
        max_age=int(SESSION_S_MAX),
        path="/",
    )
    return Response({"known": True}, cookies=[cookie])


@post("/logout", include_in_schema=False, status_code=200)
async def logout(sessions: Sessions, request: Request[Any, Any, Any]) -> Response[dict[str, bool]]:
    """End the session."""
    sessions.logout(session_of(list(request.scope["headers"])))
    return Response(
        {"known": False}, cookies=[Cookie(key=COOKIE, value="", max_age=0, path="/", samesite="strict")]
    )


@get("/v2/overview", summary="The fleet at a glance", tags=["queen"])
async def look(core: Core) -> Overview:
    """Nodes, pools, models and rates."""
    return overview(core)


@get("/v2/overview/stream", summary="The overview, live (server-sent events)", tags=["queen"])
async def stream(core: Core) -> Stream:
    """An event at each change, and every second."""
    if core.watchers >= STREAMS_MAX:
        raise HiveRefused(f"{STREAMS_MAX} dashboards watch already, as many as may")
    return Stream(_events(core), media_type="text/event-stream")


@get("/v2/nodes/{node_id:str}/pools/{pool_id:str}/logs", summary="The end of a pool's logs", tags=["pools"])
async def logs(core: Core, node_id: NodeId, pool_id: PoolId) -> Response[str]:
    """As its hive has them."""
    return Response(await _from_hive(core, node_id, f"/v2/pools/{pool_id}/logs"), media_type="text/plain")


@get("/v2/nodes/{node_id:str}/pools/{pool_id:str}/why", summary="Why a pool is in its state", tags=["pools"])
async def why(core: Core, node_id: NodeId, pool_id: PoolId) -> Response[str]:
    """The hive's verdicts."""
    return Response(
        await _from_hive(core, node_id, f"/v2/pools/{pool_id}/why"), media_type="application/json"
    )


@post("/v2/try", summary="Ask a model (what the dashboard's chat uses)", tags=["models"], status_code=200)
async def try_model(core: Core, request: Request[Any, Any, Any]) -> Response[Any]:
    """Pass a chat completion to this queen's own gateway."""
    assert core.client is not None
    body = await request.body()
    headers = {"authorization": f"Bearer {core.internal_token}", "content-type": "application/json"}
    answer = await core.client.post(
        f"{core.gateway_url}/v1/chat/completions",
        data=body,
        headers=headers,
        ssl=False,
        timeout=aiohttp.ClientTimeout(total=core.options.request_s_max),
    )
    kind = answer.headers.get("content-type", "application/json")
    return Stream(_passed(answer), status_code=answer.status, media_type=kind)


@get("/v2/proofs", summary="The newest proof bundles", tags=["queen"])
async def proofs(core: Core) -> list[ProofView]:
    """From the folder that the queen was told; none when it was told none."""
    return await asyncio.to_thread(newest, Path(core.proofs)) if core.proofs else []


LOOK: list[Any] = [
    index, script, style, session, login, logout, look, stream, logs, why, try_model, proofs
]  # fmt: skip
OPEN_ROUTES = frozenset(
    {
        ("GET", "/health"),
        ("GET", "/"),
        ("GET", "/app.js"),
        ("GET", "/style.css"),
        ("GET", "/session"),
        ("POST", "/login"),
    }
)


async def _events(core: Core) -> AsyncGenerator[bytes]:
    changed = asyncio.Event()
    core.watchers += 1
    core.registry.listen(changed.set)
    try:
        yield encode_comment("live")
        while True:
            yield encode_event(msgspec.json.encode(overview(core)))
            changed.clear()
            await asyncio.sleep(SETTLE_S)
            try:
                async with asyncio.timeout(EVERY_S - SETTLE_S):
                    await changed.wait()
            except TimeoutError:
                continue
    finally:
        core.watchers -= 1
        core.registry.unlisten(changed.set)


async def _passed(answer: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
    """Pass bytes on; leaving early closes the connection, which cancels the request."""
    try:
        async for part in answer.content.iter_any():
            yield part
    finally:
        answer.close()


async def _from_hive(core: Core, node_id: str, path: str) -> str:
    node = core.registry.nodes.get(node_id)
    if node is None:
        raise NodeUnknown(f"no node {node_id!r} is registered", node_id=node_id)
    assert core.client is not None
    try:
        async with core.client.get(node.request.address.rstrip("/") + path, allow_redirects=False) as answer:
            text = (await answer.content.read(LOG_BYTES_MAX)).decode(errors="replace")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise HiveRefused(
            f"the hive of {node_id} does not answer: {error or type(error).__name__}"
        ) from error
    if answer.status >= 400:  # noqa: PLR2004 - the class of errors
        raise HiveRefused(
            f"the hive of {node_id} answers {answer.status}: {text[:200]}", status=answer.status
        )
    return text
