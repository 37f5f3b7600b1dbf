"""`POST /execute` and `/cancel`: jobs by id, and their typed events."""

import time
from collections.abc import Sequence
from typing import Final, cast

from skep.errors import InvalidInput, SkepError, Timeout
from skep.errors.runtime import (
    Cancelled,
    DeviceError,
    DeviceMissing,
    DeviceOutOfMemory,
    InsufficientMemory,
    ModelLoadFailed,
    NoCacheSlot,
    QueueFull,
)
from skep.errors.wire import InvalidRequest
from skep.runtime.job import Job
from skep.runtime.request import Event, Finished, GenerationRequest, Started, Token
from skep.runtime.sampling import SEED_MAX, SamplingParams
from skep.wire import events as wire
from skep.wire.events import CancelRequest, ExecuteRequest
from skep.worker.chunks import encode_json
from skep.worker.request import Request
from skep.worker.service import Service, utc_now
from skep.worker.stream import JobFailed, first_events, pump

METRICS_EVERY_TOKENS: Final = 16
CODES: Final[tuple[tuple[type[SkepError], str], ...]] = (
    (QueueFull, "queue_full"),
    (Cancelled, "cancelled"),
    (Timeout, "timeout"),
    (ModelLoadFailed, "model_load_failed"),
    (DeviceOutOfMemory, "device_out_of_memory"),
    (InsufficientMemory, "insufficient_memory"),
    (NoCacheSlot, "insufficient_memory"),
    (DeviceError, "device_error"),
    (DeviceMissing, "device_error"),
    (InvalidInput, "invalid_request"),
)
"""The closed list of codes of this endpoint; the finer one of our errors stands in `cause`."""


def code_of(error: SkepError) -> str:
    """Return the code of `/execute` for an error; what says "not now" keeps its own."""
    if error.http_status in (401, 404, 405, 408, 409, 413, 415, 503) and not isinstance(
        error, InsufficientMemory | NoCacheSlot
    ):
        return error.code
    return next((code for kind, code in CODES if isinstance(error, kind)), "internal")


async def execute(service: Service, request: Request) -> None:
    """Answer a job with its events. A failure before the job has a slot is a status, after that an `error` event."""
    body = await request.parse(ExecuteRequest, service.metrics.unknown_fields)
    if body.max_tokens > service.options.max_tokens_out:
        limit = service.options.max_tokens_out
        raise InvalidRequest(
            f"max_tokens: must be at most {limit}", violations=(("max_tokens", f"must be at most {limit}"),)
        )
    meter = service.meter()
    job = await service.submit(
        GenerationRequest(
            job_id=body.job_id,
            prompt=tuple(await service.tokenize(body.prompt, parse_special=True)),
            max_tokens=body.max_tokens,
            sampling=SamplingParams(
                temperature=body.temperature,
                top_p=body.top_p,
                top_k=body.top_k,
                min_p=body.min_p,
                repetition_penalty=body.repetition_penalty,
                seed=None if body.seed is None else body.seed & SEED_MAX,
            ),
            stop=body.stop,
            deadline_s=service.options.timeout_s,
            client=request.header(b"x-skep-client"),
        )
    )
    with service.in_hand([job], "/execute"):
        async with request.watched(job.cancel):
            begun = await first_events(job, meter)
            try:
                await pump(request, [(job, meter, EventWriter(service, job))], b"", begun=begun)
                await request.write(b"", last=True)
            except JobFailed as failure:
                failure.log(request, job)
                await request.write(_error_event(failure.error), last=True)


async def cancel(service: Service, request: Request) -> None:
    """Cancel a job. Whether it was queued, running, finished or never known, the answer is the same."""
    body = await request.parse(CancelRequest, service.metrics.unknown_fields)
    if service.is_resident:
        service.engine.cancel(body.job_id)
    await request.answer(encode_json({"job_id": body.job_id, "accepted": True}), status=202)


class EventWriter:
    """Engine events as `/execute`'s: started, tokens with metrics between, end."""

    def __init__(self, service: Service, job: Job) -> None:
        self._service, self._job = service, job
        self._tokens = 0
        self._first_s = 0.0
        self._next_metrics = METRICS_EVERY_TOKENS

    def write(self, events: Sequence[Event]) -> bytes:
        """Return the bytes of some events."""
        parts: list[bytes] = []
        for event in events:
            if type(event) is Token:
                self._token(event, parts)
            elif isinstance(event, Started):
                parts.append(self._started(event))
            elif isinstance(event, Finished):
                parts.append(_end(event))
        return b"".join(parts)

    def _token(self, event: Token, parts: list[bytes]) -> None:
        if not self._first_s:
            self._first_s = time.perf_counter()
        self._tokens += event.tokens
        if event.text:
            parts.append(
                b'event: token\ndata: {"text":%b,"index":%d}\n\n' % (encode_json(event.text), event.index)
            )
        if self._tokens >= self._next_metrics:
            self._next_metrics = self._tokens + METRICS_EVERY_TOKENS
            parts.append(wire.encode(self._metrics()))

    def _metrics(self) -> wire.Metrics:
        passed_s = max(time.perf_counter() - self._first_s, 1e-6)
        _, device_bytes = self._service.memory()
        return wire.Metrics(tokens_per_s=round(self._tokens / passed_s, 3), vram_bytes=device_bytes)

    def _started(self, event: Started) -> bytes:
        return wire.encode(
            wire.Started(
                job_id=self._job.id, model=self._service.served_name, seed=event.seed, started_at=utc_now()
            )
        )


def _end(event: Finished) -> bytes:
    return wire.encode(
        wire.End(
            tokens_out=event.tokens_out,
            decode_ms=round(event.decode_s * 1000),
            stop_reason=cast("wire.StopReason", event.stop_reason),
            stop_matched=event.stop_matched,
        )
    )


def _error_event(error: SkepError) -> bytes:
    return wire.encode(wire.Error(code=code_of(error), message=str(error), retryable=error.retryable))
