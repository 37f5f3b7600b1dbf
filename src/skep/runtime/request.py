"""What the engine is asked, and the events with which it answers."""

import msgspec

from skep.errors import SkepError
from skep.runtime.sampling import SamplingParams


class Constraint(msgspec.Struct, frozen=True, kw_only=True):
    """What the output must match. `kind`: json_schema (JSON text), json_object (any object), regex, lark, gbnf."""

    kind: str
    text: str = ""


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence to generate. `prompt` holds at least one token id; `deadline_s` counts from submission."""

    job_id: str
    prompt: tuple[int, ...]
    max_tokens: int
    sampling: SamplingParams = SamplingParams()
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    constraint: Constraint | None = None
    deadline_s: float = 300.0
    ignore_end: bool = False


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


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of text, whole UTF-8 always; `index` counts generated tokens from 0.

    `tokens` is how many generated tokens this event stands for: text held back for a stop string or an unfinished
    character comes with a later token.
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


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """The other end: cancelled, timed out, stalled or broken. Exactly one of Finished and Failed ends a job."""

    error: SkepError
    tokens_out: int


Event = Started | Token | Finished | Failed


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """A moment of the engine. `kv_used` is the share 0..1 of cache positions in use."""

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
