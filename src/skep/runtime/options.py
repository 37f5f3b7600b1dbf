"""How an engine is set up, and what it refuses."""

import msgspec

from skep.errors import InvalidInput
from skep.runtime.backend import SessionOptions

DETERMINISTIC_CHUNK_ROWS = 64
CHUNK_ROWS_MIN = 2  # One row is what decoding computes.


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The shape and the manners of one engine. Times in seconds.

    `session.sequences` is the number of slots. `queue_max` bounds the jobs that wait for one. `prefill_share` 0..1 is
    the part of a full batch that arriving prompts may take in each step while others decode: more brings their first
    token sooner and makes the others' tokens come slower. `events_max` bounds the events that wait for one reader; a reader that
    stays behind for `stall_s` is cancelled. `deterministic` decodes every sequence alone, in prompt chunks of fixed
    borders (every `chunk_rows` tokens), and reuses prefixes only up to a border.
    `reuse_prefix_min` is the shortest prefix in tokens worth keeping for another job; `faults_max` how many decodes
    in a row may fail before the engine gives up. `embedding_context` is the longest text that can be embedded, and
    0 means the session's context.
    """

    session: SessionOptions = SessionOptions()
    queue_max: int = 64
    prefill_share: float = 0.5
    deterministic: bool = False
    chunk_rows: int = DETERMINISTIC_CHUNK_ROWS
    events_max: int = 256
    stall_s: float = 30.0
    reuse_prefix: bool = True
    reuse_prefix_min: int = 8
    faults_max: int = 3
    embedding_context: int = 0


def check_options(options: EngineOptions) -> EngineOptions:
    """Return `options` unchanged. Raises: InvalidInput with the first thing that is wrong."""
    session = options.session
    wrong = {
        "slots must be between 1 and batch_rows_max": not 1 <= session.sequences <= session.batch_rows_max,
        "context must be at least 2": session.context < 2,  # noqa: PLR2004 - one token in, one out
        "queue_max must not be negative": options.queue_max < 0,
        "prefill_share must be between 0 and 1": not 0 <= options.prefill_share <= 1,
        "chunk_rows must be between 2 and batch_rows_max": options.deterministic
        and not CHUNK_ROWS_MIN <= options.chunk_rows <= session.batch_rows_max,
        "events_max must be at least 2": options.events_max < 2,  # noqa: PLR2004 - a start and a token
        "stall_s must be positive": options.stall_s <= 0,
        "reuse_prefix_min must be at least 1": options.reuse_prefix_min < 1,
        "faults_max must be at least 1": options.faults_max < 1,
        "deterministic mode needs a cache that is not unified": options.deterministic
        and session.unified_cache,
    }
    for message, is_wrong in wrong.items():
        if is_wrong:
            raise InvalidInput(message)
    return options
