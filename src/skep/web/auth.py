"""Bearer tokens: compared in constant time, and never shown."""

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from typing import Any

from skep.errors import InvalidConfig
from skep.errors.web import Unauthorized
from skep.web.asgi import send_error

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TOKEN_CHARS_MAX = 1024
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


def fingerprint(token: str) -> str:
    """Return the first 6 hex digits of the token's sha256: all of a token that a log may hold."""
    return hashlib.sha256(token.encode()).hexdigest()[:6]


def is_same_token(given: str, expected: str) -> bool:
    """Compare two tokens in a time that tells nothing of either; the length is hidden as well."""
    return hmac.compare_digest(
        hashlib.sha256(given.encode()).digest(), hashlib.sha256(expected.encode()).digest()
    )


def bearer_token(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the token of an Authorization header, "" when there is none."""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer" and len(token) <= TOKEN_CHARS_MAX:
                return token.strip().decode("latin-1")
    return ""


def require_token_off_loopback(host: str, token: str | None) -> None:
    """Refuse to bind anything but loopback without a token. Raises: InvalidConfig."""
    if not token and host not in LOOPBACK_HOSTS and not host.startswith("127."):
        raise InvalidConfig(
            f"binding {host} without a token would serve everybody: set a token, or bind 127.0.0.1", host=host
        )


class BearerAuth:
    """ASGI middleware that asks every HTTP route but the open ones for a token; no token means that it asks for none."""

    def __init__(
        self, app: App, token: str | None, *, open_routes: Collection[tuple[str, str]] = (("GET", "/health"),)
    ) -> None:
        self.app = app
        self.token = token
        self.open_routes = frozenset(open_routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer 401."""
        if (
            self.token
            and scope["type"] == "http"
            and (scope["method"], scope["path"]) not in self.open_routes
        ):
            given = bearer_token(scope["headers"])
            if not is_same_token(given, self.token):
                what = "wrong" if given else "missing"
                await send_error(
                    send, Unauthorized(f"the bearer token is {what}: send 'Authorization: Bearer …'")
                )
                return
        await self.app(scope, receive, send)
