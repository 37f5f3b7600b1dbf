"""One request from the moment it is whole to the end of its answer. The rules of retrying and of endings are here.

    waiting ─granted→ sending ─first bytes→ answering ─→ ended
       ↑__________________│ retry: only while nothing of an answer has gone to the client

* Nothing is sent to the client before the replica's first event (of a stream) or its whole answer (up to
  `held_bytes_max` of a plain one), so that a replica that dies early costs nobody anything.
* A stream that breaks ends in an in-band error and an unclean end of the connection; never in `[DONE]`.
* A client that leaves closes the connection to the replica at once.
"""

import asyncio
from collections.abc import Callable

import msgspec

from skep.errors import SkepError
from skep.errors.queen import GatewayStopping, GatewayTimeout, ReplicaFailed, StreamBroken
from skep.policy.placement import Verdict
from skep.queen import head
from skep.queen.outcome import Outcome
from skep.queen.replica import Replica
from skep.queen.request import Client, Request, Shared
from skep.queen.scan import StreamScan, Usage, body_usage
from skep.queen.upstream import UpstreamConnection
from skep.wire.errors import error_object

_OVERLOADED = frozenset({429, 503})
_UNTRUSTED = frozenset({401, 403})
_BROKEN = frozenset({500, 502, 504})
_SERVER_ERROR = 500


class Exchange:
    """Moves one request to a replica and its answer back."""

    def __init__(
        self, shared: Shared, client: Client, request: Request, ended: Callable[["Exchange"], None]
    ) -> None:
        self._shared, self._client, self.request, self._ended = shared, client, request, ended
        self.model = request.fields.model
        self.session_key = request.fields.session_key
        self.prefix_key = request.fields.prefix_key
        self.priority = request.priority
        self.excluded: frozenset[str] = frozenset()
        now = shared.clock()
        self.outcome = Outcome(
            started_s=now, model=self.model, streamed=request.fields.stream, key_id=request.key_id
        )
        self.touched_s = now
        self.is_ended = False
        self._number = 0
        self._replica: Replica | None = None
        self._granted_s = now
        self._connection: UpstreamConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._verdict: Verdict | None = None
        self._head: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._scan: StreamScan | None = None
        self._is_sent = False
        self._is_paused = False

    def start(self) -> None:
        """Ask for a replica."""
        self._number = self._shared.dispatcher.submit(self)

    # What the dispatcher says.

    def granted(self, replica: Replica, verdict: Verdict) -> None:
        """Send the request there, on a kept connection when there is one."""
        now = self._shared.clock()
        self._replica, self._verdict, self._granted_s, self.touched_s = replica, verdict, now, now
        if self.outcome.attempts == 0:
            self.outcome.queued_s = now - self.outcome.started_s
        self.outcome.attempts += 1
        self.outcome.replica, self.outcome.pool_id = replica.key, replica.pool_id
        self.outcome.node_id = replica.node_id
        if connection := self._shared.upstreams.reuse(replica):
            self._send(connection)
        else:
            self._connect()

    def refused(self, error: SkepError) -> None:
        """Tell the client."""
        extra = {"loading": error.facts["loading"]} if "loading" in error.facts else None
        self._refuse(error, extra)

    # What the client does.

    def client_gone(self) -> None:
        """The client has left: whatever is done for it stops now."""
        if self.is_ended:
            return
        self.outcome.cancelled = True
        self._end()

    def client_paused(self) -> None:
        """The client does not read: neither do we."""
        self._is_paused = True
        if self._connection is not None:
            self._connection.pause()

    def client_resumed(self) -> None:
        """The client reads again."""
        self._is_paused = False
        self.touched_s = self._shared.clock()
        if self._connection is not None:
            self._connection.resume()

    def check_time(self, now_s: float) -> None:
        """End what takes too long; called a few times a second."""
        if self.is_ended:
            return
        options = self._shared.options
        if now_s - self.outcome.started_s > options.request_s_max:
            self._time_out(f"the request did not end within {options.request_s_max:.0f} s")
        elif self._replica is not None and not self._is_paused:
            limit_s = options.silent_s_max if self._is_sent else options.first_byte_s_max
            if now_s - self.touched_s > limit_s:
                self._shared.dispatcher.failed(self._replica, is_cut=True)
                self._time_out(f"the replica was silent for {limit_s:.0f} s")

    def stop(self) -> None:
        """The gateway shuts down: end with an error, inside the answer when it has begun."""
        if self.is_ended:
            return
        error = GatewayStopping("the gateway is shutting down")
        if self._is_sent:
            self._end_with(error)
        else:
            self._refuse(error, None)

    # What the replica answers.

    def answer_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Keep the head until there is a reason to send it."""
        self.touched_s = self._shared.clock()
        self._head = (status, headers)
        kind = next((value for name, value in headers if name == b"content-type"), b"")
        if status < 400 and kind.startswith(b"text/event-stream"):  # noqa: PLR2004 - the class of errors
            self._scan = StreamScan()

    def answer_body(self, data: bytes) -> None:
        """Forward whole events of a stream; hold a plain answer while it is small."""
        now = self.touched_s = self._shared.clock()
        if self._scan is not None:
            self._forward_events(self._scan, data, now)
            return
        if self._is_sent:
            self._client.send_body(data)
            return
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > self._shared.options.held_bytes_max:
            self._send_held(length=self._announced_length())

    def answer_complete(self) -> None:
        """The replica's framing says that this is all."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._shared.upstreams.keep(connection)
        if self._scan is not None:
            self._complete_stream(self._scan)
        elif self._is_sent:
            self._succeed()
            self._client.end_whole()
        else:
            self._complete_plain()

    def answer_lost(self, reason: str) -> None:
        """The connection broke before the answer was whole."""
        connection, self._connection = self._connection, None
        if self._scan is not None and self._scan.is_done and not self._scan.is_cut and self._is_sent:
            self._complete_stream(self._scan)  # Only the framing's own end is missing.
        elif self._is_sent:
            self._break(reason)
        elif connection is not None and connection.uses > 1 and not connection.has_answer_bytes:
            self._connect()  # It closed a kept connection just as we used it: that is no failure.
        else:
            self._fail(reason)

    # How it goes on, and how it ends.

    def _connect(self) -> None:
        assert self._replica is not None
        self._head, self._scan = None, None
        self._connecting = self._shared.upstreams.connect(self._replica, self._send, self._fail)

    def _send(self, connection: UpstreamConnection) -> None:
        self._connecting = None
        if self.is_ended:
            self._shared.upstreams.keep(connection)
            return
        replica, request = connection.replica, self.request
        self._connection = connection
        self._head, self._scan, self._held, self._held_bytes = None, None, [], 0
        headers = [
            (b"host", f"{replica.host}:{replica.port}".encode()),
            *request.headers,
            (b"x-request-id", request.request_id.encode()),
            (b"content-length", b"%d" % len(request.body)),
        ]
        if replica.authorization:
            headers.append((b"authorization", replica.authorization))
        target = replica.path.encode() + request.target
        connection.ask(self, head.request_head(request.method, target, headers), request.body)

    def _forward_events(self, scan: StreamScan, data: bytes, now_s: float) -> None:
        ready = scan.feed(data)
        if not ready:
            return
        if self.outcome.first_event_s is None:
            self.outcome.first_event_s = now_s
        if self.outcome.first_token_s is None and scan.has_text:
            self.outcome.first_token_s = now_s
        self.outcome.last_event_s = now_s
        if not self._is_sent:
            self._send_head(length=None)
        self._client.send_body(ready)

    def _complete_stream(self, scan: StreamScan) -> None:
        """A stream is whole only when it said so, or told its own error."""
        if not scan.is_done and not scan.is_failed:
            if self._is_sent:
                self._break("the replica ended the stream without its end mark")
            else:
                self._fail("the replica ended the stream before its first event")
            return
        if scan.is_failed:
            self.outcome.failed_inside = True
        self._succeed()
        self._client.end_whole()

    def _complete_plain(self) -> None:
        """Send a whole answer, or try elsewhere when the replica is full, draining or broken."""
        if self._head is None:
            self._fail("the replica closed the connection before it answered")
            return
        status = self._head[0]
        if status in _OVERLOADED and self._retry(is_failure=False):
            return
        if status in _UNTRUSTED:  # Our token is not its token: that is no affair of the client's.
            self._fail(f"the replica refused the gateway with {status}")
            return
        if status in _BROKEN and self._replica is not None:
            self._shared.dispatcher.failed(self._replica, is_cut=False)
        body = b"".join(self._held)
        if status < 300:  # noqa: PLR2004 - the class of successes
            self._take_usage(body_usage(body))
        self._send_held(length=len(body))
        self._succeed()
        self._client.end_whole()

    def _fail(self, reason: str) -> None:
        """The attempt failed and the client has nothing yet: another replica, or an error."""
        self._connecting = None
        if self.is_ended or self._retry(is_failure=True):
            return
        message = f"the replica that had {self.model} failed, and no other could take the request: {reason}"
        self._refuse(ReplicaFailed(message, attempts=self.outcome.attempts), None)

    def _retry(self, *, is_failure: bool) -> bool:
        """Ask for another replica; False when the attempts or the budget are used up."""
        replica, dispatcher = self._replica, self._shared.dispatcher
        if replica is None:
            return False
        if is_failure:
            dispatcher.failed(replica, is_cut=True)
        if self.outcome.attempts > self._shared.options.retries_max or not dispatcher.may_retry():
            return False
        self.excluded |= {replica.key}
        self._release()
        self._number = dispatcher.submit(self)
        return True

    def _send_head(self, *, length: int | None) -> None:
        assert self._head is not None
        status, headers = self._head
        self._is_sent = True
        self.outcome.status = status
        passed = [pair for pair in headers if pair[0] not in head.RESPONSE_HEADERS_DROPPED]
        if self.request.explain and self._verdict is not None:
            why = f"{self._verdict.why()}; attempts={self.outcome.attempts}; queued_ms={self.outcome.queued_s * 1e3:.0f}"
            passed.append((b"x-skep-why", why.encode("latin-1", "replace")))
        self._client.send_head(status, passed, length=length)

    def _send_held(self, *, length: int | None) -> None:
        self._send_head(length=length)
        held, self._held = b"".join(self._held), []
        if held:
            self._client.send_body(held)

    def _announced_length(self) -> int | None:
        assert self._head is not None
        for name, value in self._head[1]:
            if name == b"content-length" and value.isdigit():
                return int(value)
        return None

    def _take_usage(self, usage: Usage) -> None:
        self.outcome.tokens_in, self.outcome.tokens_out = usage.prompt_tokens, usage.completion_tokens

    def _succeed(self) -> None:
        if self._replica is not None and self.outcome.status < _SERVER_ERROR:
            self._replica.succeeded()
        self._end()

    def _break(self, reason: str) -> None:
        """End an answer that has begun with an error inside it."""
        if self._replica is not None:
            self._shared.dispatcher.failed(self._replica, is_cut=True)
        self._end_with(StreamBroken(f"the answer broke off: {reason}"))

    def _time_out(self, message: str) -> None:
        if self._is_sent:
            self._end_with(GatewayTimeout(message))
        else:
            self._refuse(GatewayTimeout(message), None)

    def _end_with(self, error: SkepError) -> None:
        last = b""
        if self._scan is not None:
            last = b"data: " + msgspec.json.encode({"error": error_object(error)}) + b"\n\n"
        self.outcome.broken, self.outcome.error_code = True, error.code
        self._end()
        self._client.end_broken(last)

    def _refuse(self, error: SkepError, extra: dict[str, object] | None) -> None:
        if self.is_ended:
            return
        self.outcome.status, self.outcome.error_code = error.http_status, error.code
        self._end()
        self._client.refuse(error, extra)

    def _release(self) -> None:
        """Give back the replica and drop what is under way there."""
        replica, self._replica = self._replica, None
        connection, self._connection = self._connection, None
        connecting, self._connecting = self._connecting, None
        if connection is not None:
            connection.abort()
        if connecting is not None:
            connecting.cancel()
        if replica is not None:
            self._shared.dispatcher.release(replica, self.model, self._shared.clock() - self._granted_s)

    def _end(self) -> None:
        """Take note of the end, once; nothing is told to the client here."""
        if self.is_ended:
            return
        self.is_ended = True
        self.outcome.ended_s = self._shared.clock()
        if self._scan is not None:
            self.outcome.events = self._scan.events
            self._take_usage(self._scan.usage)
        self._shared.dispatcher.withdraw(self._number)
        self._release()
        self._ended(self)
