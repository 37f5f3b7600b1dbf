"""Spans of the gateway's hop, sent to an OpenTelemetry collector as OTLP over HTTP, in JSON.

On when OTEL_EXPORTER_OTLP_ENDPOINT (or …_TRACES_ENDPOINT) is set, as every OpenTelemetry SDK has it. The client's
`traceparent` is continued, and the replica's request carries this hop's span as its parent. Without an exporter the
header passes through as it came.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec
import structlog

from skep import __version__
from skep.queen.outcome import Outcome
from skep.queen.request import Request
from skep.telemetry.trace import TraceContext, new_trace, parse

log = structlog.get_logger(__name__)

PENDING_MAX, BATCH_MAX, EVERY_S = 4_096, 512, 2.0
_KIND_SERVER, _STATUS_ERROR = 2, 2


def endpoint_of(environment: Mapping[str, str]) -> str:
    """Return where traces go, "" when nowhere."""
    given = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
    base = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    return given or (f"{base.rstrip('/')}/v1/traces" if base else "")


class Spans:
    """Makes a span for each request, and exports them in batches; what does not fit waits for nobody and is dropped."""

    def __init__(self, endpoint: str, client: aiohttp.ClientSession) -> None:
        self._endpoint, self._client = endpoint, client
        self._running: dict[str, tuple[TraceContext, str]] = {}
        self._pending: deque[dict[str, Any]] = deque(maxlen=PENDING_MAX)
        self.dropped = 0

    def begin(self, request_id: str, traceparent: bytes) -> bytes:
        """Return the traceparent for the replica."""
        parent = parse(traceparent)
        mine = parent.child() if parent else new_trace()
        self._running[request_id] = (mine, parent.span_id if parent else "")
        return mine.header().encode()

    def ended(self, request: Request, outcome: Outcome) -> None:
        """Keep the request's span for the next batch."""
        found = self._running.pop(request.request_id, None)
        if found is None or not found[0].sampled:
            return
        if len(self._pending) == PENDING_MAX:
            self.dropped += 1
        self._pending.append(_span(found[0], found[1], request, outcome))

    async def run(self) -> None:
        """Export for ever; a collector that is away costs spans, never requests."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        """Export what waits."""
        while self._pending:
            batch = [self._pending.popleft() for _ in range(min(len(self._pending), BATCH_MAX))]
            try:
                async with self._client.post(
                    self._endpoint,
                    data=_envelope(batch),
                    headers={"content-type": "application/json"},
                ) as answer:
                    await answer.read()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self.dropped += len(batch)
                log.warning("spans_dropped", count=len(batch), reason=repr(error))
                return


def _envelope(spans: list[dict[str, Any]]) -> bytes:
    resource = {"attributes": [_text("service.name", "skep-queen"), _text("service.version", __version__)]}
    scopes = [{"scope": {"name": "skep.queen", "version": __version__}, "spans": spans}]
    return msgspec.json.encode({"resourceSpans": [{"resource": resource, "scopeSpans": scopes}]})


def _span(mine: TraceContext, parent_id: str, request: Request, outcome: Outcome) -> dict[str, Any]:
    end_ns = time.time_ns()
    attributes = [
        _text("gen_ai.operation.name", request.target.decode().rpartition("/v1/")[2].replace("/", ".")),
        _text("gen_ai.request.model", outcome.model),
        _text("skep.request_id", request.request_id),
        _text("skep.replica", outcome.replica),
        _text("skep.outcome", outcome.kind),
        _number("gen_ai.usage.input_tokens", outcome.tokens_in),
        _number("gen_ai.usage.output_tokens", outcome.tokens_out),
        _number("http.response.status_code", outcome.status),
        _number("skep.attempts", outcome.attempts),
        _number("skep.queued_us", int(outcome.queued_s * 1e6)),
    ]
    span: dict[str, Any] = {
        "traceId": mine.trace_id,
        "spanId": mine.span_id,
        "name": f"gateway {outcome.model}",
        "kind": _KIND_SERVER,
        "startTimeUnixNano": str(end_ns - int(outcome.duration_s * 1e9)),
        "endTimeUnixNano": str(end_ns),
        "attributes": attributes,
        "status": {"code": _STATUS_ERROR, "message": outcome.error_code}
        if outcome.kind in {"error", "broken"}
        else {},
    }
    if parent_id:
        span["parentSpanId"] = parent_id
    return span


def _text(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value}}


def _number(key: str, value: int) -> dict[str, Any]:
    return {"key": key, "value": {"intValue": str(value)}}
