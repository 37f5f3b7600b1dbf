"""What every daemon shares: server runner, auth, limits, error handlers, the HTTP client. Knows no route.

A daemon's server, whole:

    app = BearerAuth(litestar_or_asgi_app, token, open_routes={("GET", "/health")})
    async with HttpServer(app, listen=[socket], limits=Limits()) as server:
        await stop.wait()

| file | what it alone knows |
| --- | --- |
| `limits` | how much of anything one client may use |
| `protocol` | uvicorn's HTTP protocol, held to those limits: slow heads and bodies, sizes, stalled readers |
| `server` | start on sockets that somebody else bound, stop gracefully, uvloop without installing it |
| `auth` | bearer tokens: constant time, and what of one may be logged |
| `errors` | SkepError to HTTP, for Litestar and for plain ASGI |
| `asgi` | the few verbs that a plain ASGI handler needs |
| `client` | the one way to make an aiohttp session |

Litestar's handlers take a body as `data: JSONBody[MyStruct]` (from `litestar.params`; a bare `data: MyStruct` warns),
and its applications take `exception_handlers=skep.web.errors.exception_handlers()` and `logging_config=None` (its own
configuration starts a thread that never ends; `telemetry.logs.configure` is ours). Peers are called through
`client.make_client`; what they answer when they fail is read with `skep.wire.errors.decode_error`.
"""
