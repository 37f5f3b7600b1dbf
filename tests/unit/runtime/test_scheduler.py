"""Shares of a step, and which rows go together."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.errors import InvalidInput
from skep.runtime.backend import SessionOptions
from skep.runtime.options import EngineOptions, check_options
from skep.runtime.scheduler import Scheduler, split


@given(st.lists(st.integers(1, 300), max_size=8), st.integers(0, 600))
def test_a_budget_is_spent_whole_and_nobody_gets_more_than_they_need(needs: list[int], budget: int) -> None:
    given_ = split(needs, budget)
    assert all(0 <= got <= need for got, need in zip(given_, needs, strict=True))
    assert sum(given_) == min(budget, sum(needs))


@given(st.lists(st.integers(1, 300), min_size=2, max_size=8), st.integers(8, 600))
def test_whoever_needs_less_is_never_given_less_than_an_even_share(needs: list[int], budget: int) -> None:
    even = budget // len(needs)
    assert all(got >= min(need, even) for got, need in zip(split(needs, budget), needs, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        EngineOptions(session=SessionOptions(sequences=0)),
        EngineOptions(session=SessionOptions(sequences=513)),
        EngineOptions(session=SessionOptions(context=1)),
        EngineOptions(queue_max=-1),
        EngineOptions(prefill_share=1.5),
        EngineOptions(prefill_share=float("nan")),
        EngineOptions(chunk_rows=1, deterministic=True),
        EngineOptions(chunk_rows=513, deterministic=True),
        EngineOptions(events_max=1),
        EngineOptions(stall_s=0),
        EngineOptions(faults_max=0),
        EngineOptions(reuse_prefix_min=0),
        EngineOptions(deterministic=True, session=SessionOptions(unified_cache=True)),
    ],
    ids=lambda options: str({k: getattr(options, k) for k in options.__struct_fields__ if getattr(options, k) != getattr(EngineOptions(), k)})[:60],
)  # fmt: skip
def test_options_that_cannot_work_are_refused(options: EngineOptions) -> None:
    with pytest.raises(InvalidInput):
        check_options(options)


def test_the_defaults_work() -> None:
    check_options(EngineOptions())


class Seated:
    """A sequence in a slot, as far as the plan looks at it."""

    def __init__(self, index: int, tokens: int, computed: int) -> None:
        self.index, self.tokens, self.computed = index, list(range(tokens)), computed
        self.needs = tokens - computed


def planned(decoding: list[Any], prefilling: list[Any], *, share: float, is_unified: bool) -> list[list[int]]:
    """Return for each batch of the plan whose row each is."""
    session = SessionOptions(sequences=4, batch_rows_max=32, unified_cache=is_unified)
    plan = Scheduler(EngineOptions(session=session, prefill_share=share)).plan(decoding, prefilling)
    return [[row.sequence for row in batch.rows] for batch in plan]


def test_prompts_are_a_batch_of_their_own_and_the_whole_share_is_theirs() -> None:
    decoding, prefilling = [Seated(0, 9, 8), Seated(1, 5, 4)], [Seated(2, 100, 0)]
    assert planned(decoding, prefilling, share=1, is_unified=False) == [[0, 1], [2] * 32]
    assert planned(decoding, prefilling, share=0.5, is_unified=False) == [[0, 1], [2] * 16]
    assert planned([], prefilling, share=0, is_unified=False) == [[2] * 32]
    assert planned(decoding, [], share=1, is_unified=False) == [[0, 1]]


def test_in_a_unified_cache_prompts_ride_with_the_next_tokens_in_one_pass() -> None:
    decoding, prefilling = [Seated(0, 9, 8), Seated(1, 5, 4)], [Seated(2, 100, 0)]
    assert planned(decoding, prefilling, share=1, is_unified=True) == [[0, 1, *[2] * 30]]
    assert planned([], prefilling, share=1, is_unified=True) == [[2] * 32]
