"""The `Allow` header of an answer to OPTIONS: every method of the path.

Litestar answers for the handler that was registered first at a path, and leaves out those that came later.
"""

from litestar import Litestar
from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.routes import HTTPRoute
from litestar.types import Message, Scope


async def allow_every_method(message: Message, scope: Scope) -> None:
    """Correct the header; a `before_send` hook."""
    if scope["type"] != ScopeType.HTTP or scope["method"] != "OPTIONS":
        return
    app: Litestar = scope["litestar_app"]
    for route in app.routes:
        if isinstance(route, HTTPRoute) and route.path_format == scope["path_template"]:
            if message["type"] == "http.response.start":
                MutableScopeHeaders.from_message(message)["allow"] = ", ".join(sorted(route.methods))
            return
