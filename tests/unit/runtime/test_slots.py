"""Placements: the slot that spares the most work, at the least loss."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.runtime.slots import Placement, PrefixCache, Slot, common_prefix

TOKENS = list(range(10, 60))


def slots(*caches: list[int]) -> list[Slot]:
    made = []
    for index, tokens in enumerate(caches):
        slot = Slot(index)
        slot.tokens, slot.border, slot.idle_since = list(tokens), len(tokens), float(index)
        made.append(slot)
    return made


def cache(**changes: object) -> PrefixCache:
    return PrefixCache(**({"chunk_rows": None, "length_min": 4, "is_enabled": True} | changes))


@given(st.lists(st.integers(0, 1), max_size=40), st.lists(st.integers(0, 1), max_size=40), st.integers(0, 50))
def test_the_common_prefix_is_what_counting_gives(first: list[int], second: list[int], limit: int) -> None:
    expected = 0
    while expected < min(limit, len(first), len(second)) and first[expected] == second[expected]:
        expected += 1
    assert common_prefix(first, second, limit) == expected


def test_without_a_match_an_empty_slot_comes_before_the_one_idle_longest() -> None:
    found = slots([1, 2, 3, 4, 5], [], [6, 7, 8, 9, 1])
    assert cache().place(found, TOKENS) == Placement(found[1], None, 0)
    found = slots([1, 2, 3, 4, 5], [6, 7, 8, 9, 1])
    assert cache().place(found, TOKENS) == Placement(found[0], None, 0)


def test_the_longest_match_is_used_in_place_when_little_is_lost() -> None:
    found = slots(TOKENS[:10], [*TOKENS[:20], 1, 2], [])
    assert cache().place(found, TOKENS) == Placement(found[1], None, 20)


def test_a_long_tail_is_kept_by_copying_its_beginning() -> None:
    found = slots(TOKENS[:10] + [1] * 30, [])
    assert cache().place(found, TOKENS) == Placement(found[1], found[0], 10)


def test_the_last_token_is_always_computed() -> None:
    found = slots(TOKENS)
    assert cache().place(found, TOKENS) == Placement(found[0], None, len(TOKENS) - 1)


def test_a_short_match_is_not_worth_it() -> None:
    found = slots(TOKENS[:3] + [1] * 9, [])
    assert cache().place(found, TOKENS) == Placement(found[1], None, 0)


def test_reuse_can_be_switched_off() -> None:
    found = slots(TOKENS)
    assert cache(is_enabled=False).place(found, TOKENS) == Placement(found[0], None, 0)


@pytest.mark.parametrize(("have", "expected"), [(50, 48), (47, 32), (15, 0)])
def test_in_deterministic_mode_only_whole_chunks_count(have: int, expected: int) -> None:
    found = slots(TOKENS[:have])
    assert cache(chunk_rows=16).place(found, [*TOKENS, 99]) == Placement(found[0], None, expected)


def test_nothing_is_placed_without_an_idle_slot() -> None:
    assert cache().place([], TOKENS) is None
