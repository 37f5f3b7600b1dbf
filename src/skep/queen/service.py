"""What a client's connection asks of the gateway: judge a head, answer a whole request, count connections and bytes."""

import asyncio
import secrets
import time
from typing import Protocol

import msgspec

from skep.errors.queen import KeyForbidden
from skep.errors.web import MethodNotAllowed, RouteNotFound, UnsupportedMediaType
from skep.queen import head
from skep.queen.dispatch import not_served
from skep.queen.exchange import Exchange
from skep.queen.fields import read_fields, renamed
from skep.queen.gate import Gate, Visitor, asked_priority
from skep.queen.hosts import HostCheck
from skep.queen.incoming import Incoming
from skep.queen.options import GatewayOptions
from skep.queen.outcome import Outcome
from skep.queen.request import Client, Request, Shared
from skep.queen.routes import Routes

PROXIED = frozenset({b"/v1/chat/completions", b"/v1/completions", b"/v1/embeddings"})
_GET = (b"GET", b"HEAD", b"OPTIONS")
_POST = (b"POST", b"OPTIONS")
_MODELS, _HEALTH = b"/v1/models", b"/health"


class Tracer(Protocol):
    """Who makes this hop's span."""

    def begin(self, request_id: str, traceparent: bytes) -> bytes:
        """Return the traceparent for the replica."""
        ...


class Beginning(Protocol):
    """Who is told that a request begins."""

    def started(self, request: Request) -> None:
        """A whole request is about to be placed."""
        ...


class Listener(Protocol):
    """Who is told how each request went."""

    def ended(self, request: Request, outcome: Outcome) -> None:
        """A request has ended, in whatever way."""
        ...


class Connection(Client, Protocol):
    """A client's connection, as the gateway that counts, times and ends it sees it."""

    def send_whole(
        self, status: int, body: bytes, headers: list[tuple[bytes, bytes]], kind: bytes = ...
    ) -> None:
        """Answer with one whole body."""
        ...

    def check_time(self, now_s: float) -> None:
        """End what takes too long."""
        ...

    def shut_down(self) -> None:
        """Close when idle; otherwise after the answer that is under way."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class Service:
    """The gateway as its connections see it."""

    def __init__(
        self,
        shared: Shared,
        routes: Routes,
        gate: Gate,
        *,
        hosts: HostCheck,
        listeners: tuple[Listener, ...] = (),
    ) -> None:
        self._shared, self._routes, self._gate, self._hosts, self._listeners = (
            shared,
            routes,
            gate,
            hosts,
            listeners,
        )
        self.options: GatewayOptions = shared.options
        self.tracer: Tracer | None = None
        self.beginning: Beginning | None = None
        self.connections: set[Connection] = set()
        self.running: set[Exchange] = set()
        self.idle = asyncio.Event()
        self.idle.set()
        self.empty = asyncio.Event()
        self.empty.set()
        self.is_stopping = False
        self._bodies_bytes = 0
        self._date = head.date_header(time.time())
        self._started = int(time.time())
        self._prefix = secrets.token_hex(6)
        self._number = 0

    def listen(self, listener: Listener) -> None:
        """Tell one more how requests went."""
        self._listeners = (*self._listeners, listener)

    def now_s(self) -> float:
        """Return the gateway's clock. Not the event loop's: uvloop's counts whole milliseconds."""
        return self._shared.clock()

    def date(self) -> bytes:
        """Return the Date header, at most a tick old."""
        return self._date

    def connected(self, connection: Connection) -> bool:
        """Count a connection in; False when there are too many (it is counted all the same until it is gone)."""
        self.connections.add(connection)
        self.empty.clear()
        return len(self.connections) <= self.options.limits.connections_max

    def disconnected(self, connection: Connection) -> None:
        """Count a connection out."""
        self.connections.discard(connection)
        if not self.connections:
            self.empty.set()

    def hold_body(self, size: int) -> bool:
        """Count a body's bytes in; False when all bodies together are too large."""
        self._bodies_bytes += size
        return self._bodies_bytes <= self.options.bodies_bytes_max

    def let_body_go(self, size: int) -> None:
        """Count a body's bytes out."""
        self._bodies_bytes -= size

    def judge(self, incoming: Incoming) -> None:
        """Judge a head: route, method, host, key, type. Raises: SkepError."""
        self._number += 1
        incoming.name(f"req-{self._prefix}-{self._number}")
        allowed = _allowed(incoming.path)
        if not allowed:
            raise RouteNotFound("no such route: the gateway serves /v1/models, /v1/chat/completions, …")
        if incoming.method not in allowed:
            names = tuple(method.decode() for method in allowed)
            raise MethodNotAllowed(f"this route takes {', '.join(names)}", allowed=names)
        if incoming.method == b"OPTIONS" or incoming.path == _HEALTH:
            return
        visitor = incoming.visitor = self._visitor(incoming)
        self._hosts.check(incoming.header(b"host"), is_anonymous=not visitor.key_id)
        kind = incoming.header(b"content-type").partition(b";")[0].strip().lower()
        if incoming.method == b"POST" and kind != b"application/json":
            raise UnsupportedMediaType("send JSON: Content-Type: application/json")

    def answer(self, client: Connection, incoming: Incoming) -> Exchange | None:
        """Answer a whole request, or return the exchange that will. Raises: SkepError."""
        if incoming.method == b"OPTIONS":
            client.send_whole(204, b"", [(b"allow", b", ".join(_allowed(incoming.path)))])
        elif incoming.path == _HEALTH:
            client.send_whole(200, msgspec.json.encode({"status": "ok"}), [])
        elif incoming.path.startswith(_MODELS):
            client.send_whole(200, self._models(incoming), [])
        else:
            return self._exchange(client, incoming)
        return None

    def sweep(self) -> None:
        """Judge every deadline; called a few times a second."""
        now = self.now_s()
        self._date = head.date_header(time.time())
        for connection in list(self.connections):
            connection.check_time(now)

    def ended(self, exchange: Exchange, visitor: Visitor) -> None:
        """Count an exchange out and tell the listeners."""
        self.running.discard(exchange)
        if not self.running:
            self.idle.set()
        self._gate.leave(visitor, exchange.outcome)
        for listener in self._listeners:
            listener.ended(exchange.request, exchange.outcome)

    def _exchange(self, client: Connection, incoming: Incoming) -> Exchange:
        visitor = incoming.visitor
        body = incoming.whole_body()
        fields = read_fields(body, session=incoming.header(b"x-skep-session").decode("latin-1"))
        route = self._routes.get(fields.model)
        if route is not None and route.model != fields.model:  # Engines know the name proper only.
            body = renamed(body, route.model)
            fields = msgspec.structs.replace(fields, model=route.model)
        self._gate.enter(visitor, fields.model)
        request = Request(
            request_id=incoming.request_id,
            method=incoming.method,
            target=incoming.path,
            headers=self._headers(incoming, visitor),
            body=body,
            fields=fields,
            priority=asked_priority(visitor, incoming.header(b"x-skep-priority")),
            key_id=visitor.key_id,
            explain=bool(incoming.header(b"x-skep-why")),
        )
        exchange = Exchange(self._shared, client, request, lambda one: self.ended(one, visitor))
        self.running.add(exchange)
        self.idle.clear()
        if self.beginning is not None:
            self.beginning.started(request)
        return exchange

    def _headers(self, incoming: Incoming, visitor: Visitor) -> tuple[tuple[bytes, bytes], ...]:
        """Return what goes on to the replica, which admits waiting jobs in turn over clients."""
        passed = tuple(pair for pair in incoming.headers if pair[0] in head.REQUEST_HEADERS)
        if visitor.key_id:
            passed = (*passed, (b"x-skep-client", visitor.key_id.encode()))
        if self.tracer is None:
            return passed
        mine = self.tracer.begin(incoming.request_id, incoming.header(b"traceparent"))
        return (*(pair for pair in passed if pair[0] != b"traceparent"), (b"traceparent", mine))

    def _visitor(self, incoming: Incoming) -> Visitor:
        scheme, _, token = incoming.header(b"authorization").partition(b" ")
        return self._gate.visitor(token.strip().decode("latin-1") if scheme.lower() == b"bearer" else "")

    def _models(self, incoming: Incoming) -> bytes:
        """Return the list of models, or one of them."""
        visitor = incoming.visitor
        named = incoming.path[len(_MODELS) + 1 :].decode("latin-1")
        if not named:
            names = [name for name in self._routes.models() if not visitor.models or name in visitor.models]
            return msgspec.json.encode({"object": "list", "data": [self._model(name) for name in names]})
        if visitor.models and named not in visitor.models:
            raise KeyForbidden(f"this key may not use {named[:100]!r}", param="model")
        if self._routes.get(named) is None:
            raise not_served(named, self._routes.models())
        return msgspec.json.encode(self._model(named))

    def _model(self, name: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": self._started, "owned_by": "skep"}


def _allowed(path: bytes) -> tuple[bytes, ...]:
    """Return the methods that a path takes; none when there is no such path."""
    if path in PROXIED:
        return _POST
    if path in (_MODELS, _HEALTH, b"*") or (path.startswith(_MODELS + b"/") and len(path) > len(_MODELS) + 1):
        return _GET
    return ()
