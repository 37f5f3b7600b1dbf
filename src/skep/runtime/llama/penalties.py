"""Which signature `llama_sampler_init_penalties` has: found by what it does.

Builds differ: (n_vocab, last_n, repeat, freq, present) or (last_n, repeat, freq, present). Floats and integers travel
in separate registers, so either order can be called safely, and the effect tells: with a window of one token, only the
last accepted of two tokens is penalised.
"""

import ctypes
from collections.abc import Callable
from typing import Any

from skep.errors.runtime import AbiMismatch
from skep.runtime.llama import layout

PenaltyArguments = Callable[[int, int], tuple[int, int]]


def penalty_arguments(api: Any, *, path: str) -> PenaltyArguments:
    """Return (vocab_size, last_n) → the two leading integers as this build wants them. Raises: AbiMismatch."""
    if _penalised(api, (8, 1)) == {2}:
        return lambda vocab_size, last_n: (vocab_size, last_n)
    if _penalised(api, (1, 0)) == {2}:
        return lambda _vocab_size, last_n: (last_n, 0)
    raise AbiMismatch(f"{path}: llama_sampler_init_penalties has an unknown signature", path=path)


def _penalised(api: Any, leading: tuple[int, int]) -> set[int]:
    """Return which of tokens 0..3 a penalty of 2 changes after 1 and 2 were accepted."""
    sampler = api.llama_sampler_init_penalties(*leading, 2.0, 0.0, 0.0)
    try:
        data = (layout.TokenData * 4)(*(layout.TokenData(token, 4.0, 0.0) for token in range(4)))
        array = layout.TokenDataArray(data, 4, -1, False)  # noqa: FBT003 - C fields by position
        for token in (1, 2):
            api.llama_sampler_accept(sampler, token)
        api.llama_sampler_apply(sampler, ctypes.byref(array))
        return {data[index].id for index in range(4) if data[index].logit != 4.0}  # noqa: PLR2004 - the logit set above
    finally:
        api.llama_sampler_free(sampler)
