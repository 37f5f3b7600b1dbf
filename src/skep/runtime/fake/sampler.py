"""The fake's sampler: every parameter of `SamplingParams`, in numpy, from a generator of its own."""

from collections import Counter, deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from skep.errors.runtime import Closed
from skep.runtime.sampling import SamplingParams

Scores = npt.NDArray[np.float32]


class FakeSampler:
    """Penalties' history and a seeded generator for one sequence."""

    def __init__(self, params: SamplingParams, prompt: Sequence[int]) -> None:
        self._params = params
        self._generator = np.random.default_rng(params.seed or 0)
        self._recent: deque[int] = deque(prompt, maxlen=params.penalty_last_tokens)
        self._closed = False
        self.is_plain_greedy = (
            params.temperature == 0
            and not params.logit_bias
            and params.repetition_penalty == 1.0
            and params.presence_penalty == params.frequency_penalty == 0.0
        )

    def accept(self, token: int) -> int:
        """Remember a chosen token, and return it. Raises: Closed."""
        if self._closed:
            raise Closed("the sampler is closed")
        self._recent.append(token)
        return token

    def choose(self, logits: Scores) -> int:
        """Return and remember the next token. Raises: Closed."""
        scores = logits.astype(np.float64)
        self._penalise(scores)
        if self._params.temperature == 0:
            return self.accept(int(np.argmax(scores)))
        weights = _truncate(_softmax(scores / self._params.temperature), self._params)
        return self.accept(int(self._generator.choice(len(weights), p=weights / weights.sum())))

    def close(self) -> None:
        """Forget everything."""
        self._closed = True

    def _penalise(self, scores: npt.NDArray[np.float64]) -> None:
        params = self._params
        for token, bias in params.logit_bias.items():
            scores[token] += bias
        for token, count in Counter(self._recent).items():
            penalty = params.repetition_penalty
            scores[token] = scores[token] * penalty if scores[token] <= 0 else scores[token] / penalty
            scores[token] -= params.presence_penalty + count * params.frequency_penalty


def _softmax(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    weights: npt.NDArray[np.float64] = np.exp(scores - scores.max())
    weights /= weights.sum()
    return weights


def _truncate(weights: npt.NDArray[np.float64], params: SamplingParams) -> npt.NDArray[np.float64]:
    """Return the weights with what top-k, top-p and min-p exclude set to zero; the best token always stays."""
    order = np.argsort(-weights, kind="stable")
    keep = np.ones(len(weights), dtype=bool)
    if params.top_k:
        keep[params.top_k :] = False
    if params.top_p < 1.0:
        keep &= np.cumsum(weights[order]) - weights[order] < params.top_p
    if params.min_p:
        keep &= weights[order] >= params.min_p * weights[order[0]]
    keep[0] = True
    return np.where(keep[np.argsort(order, kind="stable")], weights, 0.0)
