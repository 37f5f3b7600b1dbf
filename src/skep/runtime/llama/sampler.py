"""A sampler chain of llama.cpp: what becomes of a row's logits, in the order that llama.cpp's own tools use.

logit bias → penalties → top-k → top-p → min-p → temperature → seeded draw (or the highest, at temperature 0).
"""

import secrets
from collections.abc import Sequence
from typing import Any, Final, Self

from skep.errors.runtime import Closed, InvalidSampling
from skep.runtime.llama import layout
from skep.runtime.llama.library import Library
from skep.runtime.sampling import SEED_MAX, SamplingParams, check

# llama.h, LLAMA_DEFAULT_SEED: means "draw a seed", which would break repeatability. Its neighbour takes its place.
_RANDOM_SEED: Final = 0xFFFFFFFF


class LlamaSampler:
    """The sampling state of one sequence. Belongs to its session's owner thread.

    `is_argmax` is true when nothing but the highest logit counts: then no chain is needed, and numpy finds it in a
    tenth of the time that a chain takes over a vocabulary of 32,000.
    """

    __slots__ = ("_library", "handle", "is_argmax", "is_open")

    def __init__(
        self, library: Library, params: SamplingParams, *, vocab_size: int, prompt: Sequence[int]
    ) -> None:
        """Raises: InvalidSampling."""
        self.is_open = False
        self.handle: int | None = None
        self._library = library
        check(params, vocab_size=vocab_size)
        if prompt and not (min(prompt) >= 0 and max(prompt) < vocab_size):
            raise InvalidSampling(f"the prompt has tokens outside the vocabulary of {vocab_size}")
        has_penalties = _has_penalties(params)
        self.is_argmax = params.temperature == 0 and not has_penalties and not params.logit_bias
        self.is_open = True
        if not self.is_argmax:
            self.handle = self._build(params, vocab_size=vocab_size)
            if has_penalties:
                for token in prompt[-params.penalty_last_tokens :]:
                    library.api.llama_sampler_accept(self.handle, token)

    def close(self) -> None:
        """Free the sampler; closing twice is fine."""
        if self.is_open:
            self.is_open = False
            if self.handle is not None:
                self._library.api.llama_sampler_free(self.handle)
                self.handle = None

    def refusal(self) -> Closed:
        """Return the error for using it when it is closed."""
        return Closed("this sampler is closed")

    def _build(self, params: SamplingParams, *, vocab_size: int) -> int:
        api = self._library.api
        chain: int = api.llama_sampler_chain_init(layout.ChainParams(True))  # noqa: FBT003 - a C field by position
        for part in self._parts(params, vocab_size=vocab_size):
            api.llama_sampler_chain_add(chain, part)
        return chain

    def _parts(self, params: SamplingParams, *, vocab_size: int) -> list[Any]:
        api = self._library.api
        parts: list[Any] = []
        if params.logit_bias:
            biases = (layout.LogitBias * len(params.logit_bias))(
                *map(layout.LogitBias, params.logit_bias, params.logit_bias.values())
            )
            parts.append(api.llama_sampler_init_logit_bias(vocab_size, len(biases), biases))
        if _has_penalties(params):
            leading = self._library.penalty_arguments(vocab_size, params.penalty_last_tokens)
            parts.append(
                api.llama_sampler_init_penalties(
                    *leading, params.repetition_penalty, params.frequency_penalty, params.presence_penalty
                )
            )
        if params.temperature == 0:
            return [*parts, api.llama_sampler_init_greedy()]
        if 0 < params.top_k < vocab_size:
            parts.append(api.llama_sampler_init_top_k(params.top_k))
        if params.top_p < 1.0:
            parts.append(api.llama_sampler_init_top_p(params.top_p, 1))
        if params.min_p > 0.0:
            parts.append(api.llama_sampler_init_min_p(params.min_p, 1))
        parts.append(api.llama_sampler_init_temp(params.temperature))
        return [*parts, api.llama_sampler_init_dist(_seed(params.seed))]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _has_penalties(params: SamplingParams) -> bool:
    has_effect = params.repetition_penalty != 1.0 or bool(params.presence_penalty or params.frequency_penalty)
    return has_effect and params.penalty_last_tokens > 0


def _seed(seed: int | None) -> int:
    chosen = secrets.randbelow(SEED_MAX) if seed is None else seed
    return chosen - 1 if chosen == _RANDOM_SEED else chosen
