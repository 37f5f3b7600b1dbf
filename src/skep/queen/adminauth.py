"""Who may use the admin API: a bearer token, or a browser's session that the token was traded for.

The session's cookie is HttpOnly and SameSite=Strict, and calls that change something must come from our own origin. The
Host header must name this machine, so that no page can rebind its own name to it. Every changing call is audited.
"""

import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from skep.errors.web import MalformedHttp, Unauthorized
from skep.queen.hosts import HostCheck
from skep.web.asgi import send_error
from skep.web.auth import bearer_token, fingerprint, is_same_token

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Record = Callable[..., None]

COOKIE = "skep_session"
SESSION_S_MAX = 12 * 3600.0
SESSIONS_MAX = 256
LOGIN_TRIES_PER_MINUTE = 10
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_QUIET = ("/heartbeat", "/register")


class Sessions:
    """Browsers that have logged in; at most `SESSIONS_MAX`, the oldest goes."""

    def __init__(self, token: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._token, self._clock = token, clock
        self._ends_s: dict[str, float] = {}
        self._tries_s: list[float] = []

    @property
    def is_open(self) -> bool:
        """True when there is no token, and so nothing to log in with."""
        return not self._token

    def login(self, token: str) -> str | None:
        """Return a new session for the right token, None for a wrong one or when too many were tried just now."""
        now = self._clock()
        self._tries_s = [at for at in self._tries_s if now - at < 60.0]  # noqa: PLR2004 - a minute
        if len(self._tries_s) >= LOGIN_TRIES_PER_MINUTE or not self._token:
            return None
        if not is_same_token(token, self._token):
            self._tries_s.append(now)
            return None
        self._ends_s = {one: end for one, end in self._ends_s.items() if end > now}
        while len(self._ends_s) >= SESSIONS_MAX:
            del self._ends_s[next(iter(self._ends_s))]
        session = secrets.token_urlsafe(32)
        self._ends_s[session] = now + SESSION_S_MAX
        return session

    def logout(self, session: str) -> None:
        """End a session."""
        self._ends_s.pop(session, None)

    def actor(self, headers: list[tuple[bytes, bytes]]) -> tuple[str, bool]:
        """Return who asks ("" = nobody we know) and whether by a cookie."""
        if not self._token:
            return "anonymous", False
        given = bearer_token(headers)
        if given:
            return (f"token:{fingerprint(given)}" if is_same_token(given, self._token) else ""), False
        session = session_of(headers)
        if session and self._ends_s.get(session, 0.0) > self._clock():
            return f"session:{fingerprint(session)}", True
        return "", False


def session_of(headers: list[tuple[bytes, bytes]]) -> str:
    """Return the session that a request's cookie names, "" when none."""
    for name, value in headers:
        if name == b"cookie":
            try:
                morsel = SimpleCookie(value.decode("latin-1")).get(COOKIE)
            except CookieError:
                return ""
            return morsel.value if morsel else ""
    return ""


class AdminAuth:
    """ASGI middleware. `open_routes` ask for nobody; everything else for a token or a session."""

    def __init__(
        self,
        app: App,
        sessions: Sessions,
        hosts: HostCheck,
        record: Record,
        *,
        open_routes: frozenset[tuple[str, str]],
    ) -> None:
        self._app, self._sessions, self._hosts, self._record = app, sessions, hosts, record
        self._open_routes = open_routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer 400 or 401."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, method, path = scope["headers"], scope["method"], scope["path"]
        actor, by_cookie = self._sessions.actor(headers)
        is_open = (method, path) in self._open_routes
        given = dict(headers)
        host = given.get(b"host", b"").decode("latin-1")
        if not self._hosts.knows(host) and not actor.startswith("token:") and path != "/health":
            await send_error(send, MalformedHttp("the Host header names another machine than this one"))
            return
        if not actor and not is_open:
            await send_error(
                send, Unauthorized("the admin token is missing or wrong: send 'Authorization: Bearer …'")
            )
            return
        origin = given.get(b"origin", b"").decode("latin-1")
        is_ours = urlsplit(origin).netloc == host if origin else not by_cookie
        if method not in _SAFE and not is_ours and not actor.startswith("token:"):
            await send_error(send, Unauthorized("this call must come from the dashboard's own page"))
            return
        if method in _SAFE or path.endswith(_QUIET):
            await self._app(scope, receive, send)
            return
        await self._audited(scope, receive, send, actor or "nobody")

    async def _audited(self, scope: Scope, receive: Receive, send: Send, actor: str) -> None:
        status = 500

        async def note(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        client = scope.get("client")
        try:
            await self._app(scope, receive, note)
        finally:
            self._record(
                actor=actor,
                address=client[0] if client else "",
                method=scope["method"],
                path=scope["path"],
                status=status,
            )
