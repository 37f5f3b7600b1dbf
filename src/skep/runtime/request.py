"""What the engine is asked, and the events with which it answers."""

import msgspec
import numpy as np
import numpy.typing as npt

from skep.errors import SkepError
from skep.runtime.sampling import SamplingParams


class Constraint(msgspec.Struct, frozen=True, kw_only=True):
    """What the output must match. `kind`: json_schema (JSON text), json_object (any object), regex, lark, gbnf."""

    kind: str
    text: str = ""


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence to generate. `prompt` holds at least one token id; `deadline_s` counts from submission.

    `max_tokens` is cut to what the context leaves beside the prompt. `client` names whoever asks: waiting jobs are
    admitted in turn over clients, in order within one. `logprobs` is how many alternatives to tell, 0..20.
    """

    job_id: str
    prompt: tuple[int, ...]
    max_tokens: int
    sampling: SamplingParams = SamplingParams()
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    constraint: Constraint | None = None
    deadline_s: float = 300.0
    ignore_end: bool = False
    client: str = ""


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence to embed. `prompt` holds at least one token id."""

    job_id: str
    prompt: tuple[int, ...]
    deadline_s: float = 300.0
    client: str = ""


class Started(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The job was admitted to a slot. `cached_tokens` of the prompt came from a reused prefix."""

    seed: int
    prompt_tokens: int
    cached_tokens: int


class TokenLogprob(msgspec.Struct, frozen=True, gc=False):
    """One token, its bytes and its natural-log probability."""

    token: int
    piece: bytes
    logprob: float


class Token(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A piece of text, whole UTF-8 always; `index` counts generated tokens from 0.

    `tokens` is how many generated tokens this event stands for: text held back for a stop string or an unfinished
    character comes with a later token. Where log-probabilities were asked for there is one event for every token,
    its text may be empty, and text that is still held at the end comes in an event of 0 tokens.
    """

    text: str
    index: int
    tokens: int = 1
    logprob: TokenLogprob | None = None
    top: tuple[TokenLogprob, ...] = ()


class Finished(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The good end. `stop_reason`: max_tokens, stop_sequence or end_of_text. Times in seconds."""

    stop_reason: str
    tokens_out: int
    prompt_tokens: int
    cached_tokens: int
    prefill_s: float
    decode_s: float
    stop_matched: str | None = None


class Embedded(msgspec.Struct, frozen=True, kw_only=True):
    """The good end of an embedding: a vector of unit length."""

    vector: npt.NDArray[np.float32]
    prompt_tokens: int


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """The other end: cancelled, timed out, stalled or broken.

    Exactly one of Finished, Embedded and Failed ends a job.
    """

    error: SkepError
    tokens_out: int


Event = Started | Token | Finished | Embedded | Failed


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """A moment of the engine.

    `kv_used` is the share 0..1 of cache positions that jobs in slots hold; idle prefixes are not counted, they give
    way at once. `running` counts jobs in slots; a paused job may have lost its slot to one that waited. Prefix queries and hits count prompt tokens.
    `reopened_total` counts contexts that were lost to a fault and opened again.
    """

    slots_total: int
    slots_free: int
    running: int
    waiting: int
    paused: int
    kv_used: float
    prompt_tokens_total: int
    generated_tokens_total: int
    prefix_queries_total: int
    prefix_hits_total: int
    cancelled_total: int
    failed_total: int
    finished_total: int = 0
    preempted_total: int = 0
    interrupted_total: int = 0
    reopened_total: int = 0
    steps_total: int = 0
    draining: bool = False
