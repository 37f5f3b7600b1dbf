"""`/execute`, `/cancel` and `/drain`: requests, and the events of a job's stream.

A stream is one `started`, then `token`s with `metrics` between, then exactly one of `end` and `error`.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from skep.errors.wire import MalformedStream
from skep.wire.sse import SseEvent

PROMPT_CHARS_MAX: Final = 32_768
MAX_TOKENS_MAX: Final = 2048
STOP_MAX: Final = 4
DRAIN_MS_MAX: Final = 24 * 3600 * 1000

JobId = Annotated[str, Meta(pattern=r"^[\x21-\x7e]{1,128}$")]
Share = Annotated[float, Meta(ge=0, le=1)]

StopReason = Literal["max_tokens", "stop_sequence", "end_of_text"]
ErrorCode = Literal[
    "invalid_request",
    "model_load_failed",
    "insufficient_memory",
    "device_out_of_memory",
    "device_error",
    "queue_full",
    "timeout",
    "cancelled",
    "internal",
]


class ExecuteRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of `POST /execute`. `temperature` 0 is greedy; without a seed one is chosen, and told."""

    job_id: JobId
    prompt: Annotated[str, Meta(min_length=1, max_length=PROMPT_CHARS_MAX)]
    max_tokens: Annotated[int, Meta(ge=1, le=MAX_TOKENS_MAX)] = 256
    temperature: Annotated[float, Meta(ge=0, le=2)] = 1.0
    top_p: Share = 1.0
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    min_p: Share = 0.0
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] = 1.0
    stop: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=512)], ...], Meta(max_length=STOP_MAX)
    ] = ()
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None


class CancelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `POST /cancel`."""

    job_id: JobId


class DrainRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `POST /drain`: jobs that still run after `deadline_ms` are cancelled."""

    deadline_ms: Annotated[int, Meta(ge=0, le=DRAIN_MS_MAX)] = 5000


class DrainOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a drain ended."""

    drained: bool
    duration_ms: int
    jobs_finished: int
    jobs_cancelled: int


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """The job has a slot. `started_at` is RFC 3339, UTC."""

    job_id: str
    model: str
    seed: int
    started_at: str


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of text, whole UTF-8; `index` counts generated tokens from 0, gaps are text that was held back."""

    text: str
    index: int


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """A moment of the job's speed and of the device's memory."""

    tokens_per_s: float
    vram_bytes: int


class End(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The good end. `stop_matched` is the stop string that was found."""

    tokens_out: int
    decode_ms: int
    stop_reason: StopReason
    stop_matched: str | None = None


class Error(msgspec.Struct, frozen=True, kw_only=True):
    """The other end. `retryable`: the same request may work later or elsewhere."""

    code: str
    message: str
    retryable: bool


InferenceEvent = Started | Token | Metrics | End | Error

EVENT_NAMES: Final[dict[type, str]] = {
    Started: "started",
    Token: "token",
    Metrics: "metrics",
    End: "end",
    Error: "error",
}
_KINDS: Final = {name: kind for kind, name in EVENT_NAMES.items()}


def is_terminal(event: InferenceEvent) -> bool:
    """True for the events that end a stream."""
    return isinstance(event, End | Error)


def encode(event: InferenceEvent) -> bytes:
    """Return the event's bytes on an event stream."""
    return b"event: %b\ndata: %b\n\n" % (EVENT_NAMES[type(event)].encode(), msgspec.json.encode(event))


def decode(event: SseEvent) -> InferenceEvent:
    """Return what an event of the stream says. Raises: MalformedStream (an unknown name, or data of another shape)."""
    kind = _KINDS.get(event.event)
    if kind is None:
        raise MalformedStream(f"/execute has no event called {event.event[:40]!r}", event=event.event[:40])
    try:
        found: InferenceEvent = msgspec.json.decode(event.data, type=kind)
    except msgspec.DecodeError as error:
        raise MalformedStream(f"a {event.event} event has other data than it should: {error}") from error
    return found
