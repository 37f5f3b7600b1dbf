"""How the next token is chosen: the parameters, and their ranges."""

import math
from typing import Any

import msgspec

from skep.errors.runtime import InvalidSampling

SEED_MAX = 2**32 - 1
STOP_STRINGS_MAX = 4
LOGPROBS_MAX = 20
LOGIT_BIAS_MAX = 100.0


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that shapes one sequence's choice of tokens.

    `temperature` 0 is greedy. `seed` None means that the engine picks one and tells it. `top_k` 0 and `top_p` 1.0
    mean off. `logit_bias` maps token ids to −100..100.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_last_tokens: int = 64
    logit_bias: dict[int, float] = msgspec.field(default_factory=dict)
    seed: int | None = None


_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 2.0),
    "top_k": (0, 1_000_000),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 10.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "penalty_last_tokens": (0, 65_536),
    "seed": (0, SEED_MAX),
}


def violations(params: SamplingParams, *, vocab_size: int | None = None) -> dict[str, str]:
    """Return field → what is wrong with it; empty when all is well."""
    found: dict[str, str] = {}
    for field, (low, high) in _RANGES.items():
        value: Any = getattr(params, field)
        if value is not None and not (math.isfinite(value) and low <= value <= high):
            found[field] = f"must be between {low:g} and {high:g}"
    for token, bias in params.logit_bias.items():
        if vocab_size is not None and not 0 <= token < vocab_size:
            found["logit_bias"] = f"token {token} is outside the vocabulary of {vocab_size}"
        elif not -LOGIT_BIAS_MAX <= bias <= LOGIT_BIAS_MAX:
            found["logit_bias"] = "each bias must be between -100 and 100"
    return found


def check(params: SamplingParams, *, vocab_size: int | None = None) -> SamplingParams:
    """Return `params` unchanged. Raises: InvalidSampling with every violation."""
    if found := violations(params, vocab_size=vocab_size):
        text = "; ".join(f"{field} {why}" for field, why in found.items())
        raise InvalidSampling(text, violations=found)
    return params
