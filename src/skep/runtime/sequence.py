"""A job in a slot: its tokens, how many of them are cached, and the state of its sampling and its text."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from skep.runtime.backend import BackendSession, Sampler
from skep.runtime.job import Job
from skep.runtime.request import TokenLogprob
from skep.runtime.slots import Slot
from skep.runtime.text import Pieces, TextStream


class Choice(NamedTuple):
    """A sampled token with what was asked to be told of it."""

    token: int
    logprob: TokenLogprob | None = None
    top: tuple[TokenLogprob, ...] = ()


class Sequence:
    """`tokens` holds the prompt and what was generated; the first `computed` of them are in the slot's cache.

    One uncomputed token means decoding, more of them mean prefill; after a preemption that is simply all of them.
    `border` is how many tokens were computed in whole chunks (deterministic mode). While there is a `donor`, another
    sequence is computing `donor_length` tokens that this one begins with too, and it waits to take them over.
    """

    __slots__ = (
        "admitted_at",
        "border",
        "computed",
        "donor",
        "donor_length",
        "first_token_at",
        "ignore_end",
        "index",
        "is_plain",
        "is_prefilling",
        "is_started",
        "job",
        "logprobs",
        "matcher",
        "max_tokens",
        "sampler",
        "slot",
        "stream",
        "tokens",
        "untold",
    )

    def __init__(self, job: Job, *, stream: TextStream, sampler: Sampler, now: float) -> None:
        request = job.generation
        self.job = job
        self.tokens = list(request.prompt)
        self.max_tokens = job.max_tokens
        self.ignore_end = request.ignore_end
        self.logprobs = request.logprobs
        self.matcher = job.matcher
        self.is_plain = request.logprobs is None and job.matcher is None
        self.sampler = sampler
        self.stream = stream
        self.admitted_at = now
        self.first_token_at = 0.0
        self.untold = 0  # Tokens whose text was not told yet.
        self.computed = 0
        self.border = 0
        self.is_prefilling = False
        self.is_started = False
        self.donor: Sequence | None = None
        self.donor_length = 0
        self.slot: Slot | None = None
        self.index = -1  # Of the slot; copied for the hot loop.

    @property
    def needs(self) -> int:
        """How many tokens must be computed before the next one can be sampled."""
        return len(self.tokens) - self.computed

    def choose(self, session: BackendSession, row: int, pieces: Pieces) -> Choice:
        """Sample from row `row`, under the constraint, with log-probabilities where asked. Raises: InvalidGrammar."""
        logits = session.logits(row)
        scores = None if self.logprobs is None else log_softmax(logits)  # Before the mask changes them.
        if self.matcher is not None:
            self.matcher.mask(logits)
        token = session.sample(self.sampler, row)
        if scores is None:
            return Choice(token)
        return Choice(token, _told(scores, token, pieces), _best(scores, self.logprobs or 0, pieces))


def log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return natural-log probabilities, in double precision."""
    shifted = logits.astype(np.float64) - float(logits.max())
    shifted -= np.log(np.exp(shifted).sum())
    return shifted


def _told(scores: npt.NDArray[np.float64], token: int, pieces: Pieces) -> TokenLogprob:
    return TokenLogprob(token, pieces.bytes_of(token), float(scores[token]))


def _best(scores: npt.NDArray[np.float64], count: int, pieces: Pieces) -> tuple[TokenLogprob, ...]:
    count = min(count, len(scores))
    if not count:
        return ()
    best = np.argpartition(-scores, count - 1)[:count]
    order = sorted((int(token) for token in best), key=lambda token: (-scores[token], token))
    return tuple(_told(scores, token, pieces) for token in order)
