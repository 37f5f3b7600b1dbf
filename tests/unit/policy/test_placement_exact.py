"""Placement to the letter. Queens of different versions place the same sessions: what maps a key may not drift."""

import pytest

from skep.policy.admission import Ticket, retry_after_s
from skep.policy.placement import (
    SLACK,
    Ask,
    NodeRoom,
    ReplicaLoad,
    Rule,
    Spread,
    place,
    place_pool,
    prefix_key,
    rendezvous,
    text_key,
)


def replica(name: str, busy: int = 0, slots: int = 4) -> ReplicaLoad:
    return ReplicaLoad(replica_id=name, busy=busy, slots_total=slots)


def order(found) -> str:
    return "".join(one.replica_id for one in found)


UNEVEN = [replica("a", slots=1), replica("b", slots=2), replica("c", slots=4), replica("d", slots=0)]
LOADED = [replica(name, busy) for name, busy in zip("abcde", (3, 0, 2, 2, 1), strict=True)]


def test_a_prompt_has_the_key_of_its_first_four_full_blocks() -> None:
    keys = [prefix_key(b"ab" * pairs) for pairs in (127, 128, 255, 256, 512, 700)]
    one, two, four = 145592104537861194, 12350957406106171907, 1021097670525478243
    assert keys == [0, one, one, two, four, four]


def test_a_name_has_a_key_of_64_bits_and_no_name_has_none() -> None:
    assert [text_key(name) for name in ("", "a", "session-1")] == [
        0,
        3405396810240292928,
        12459036657078585774,
    ]


@pytest.mark.parametrize(
    ("key", "ranked"), [(1, "abcd"), (2, "bcda"), (3, "acbd"), (7, "cbda"), (2**64 - 1, "cbad")]
)
def test_a_key_ranks_replicas_as_it_always_did(key: int, ranked: str) -> None:
    assert order(rendezvous(key, UNEVEN)) == ranked


def test_a_session_is_placed_as_it_always_was() -> None:
    found = [order(place(Ask(session_key=key), LOADED).considered) for key in range(1, 9)]
    assert found == ["bdcea", "ebdca", "cbdea", "bdcea", "bceda", "bedca", "cbeda", "edcba"]


def test_equal_salts_draw_the_same_two() -> None:
    salts = (0, 1, 2, 3, 4, 5, 2**32, 2**40 + 17, 2**63)
    found = [order(place(Ask(salt=salt), LOADED).considered) for salt in salts]
    assert found == ["ca", "ba", "da", "ed", "bd", "ed", "be", "bd", "da"]


@pytest.mark.parametrize(
    ("busy", "slots", "chosen"),
    [
        ((0, 0), (4, 4), 0),
        ((1, 0), (4, 4), 0),  # ceil(1.25 · 2 · 4 / 8) = 2: one more makes it two.
        ((2, 0), (4, 4), 1),  # ceil(1.25 · 3 · 4 / 8) = 2: one more would be three.
        ((4, 0), (8, 2), 0),  # ceil(1.25 · 5 · 8 / 10) = 5.
        ((6, 0), (8, 1), 0),  # ceil(1.25 · 7 · 8 / 9) = 8.
        ((3, 3), (4, 4), 0),
        ((2, 0), (2, 0), 0),  # No slots count as one: ceil(1.25 · 3 · 2 / 3) = 3.
        ((1, 0), (1, 3), 1),  # ceil(1.25 · 2 · 1 / 4) = 1: one more would be two.
        ((3, 2), (5, 1), 0),  # ceil(1.25 · 6 · 5 / 6) = 7.
    ],
)
def test_a_key_stays_at_its_replica_within_a_quarter_above_the_mean(
    busy: tuple[int, int], slots: tuple[int, int], chosen: int
) -> None:
    assert SLACK == 1.25
    pair = [replica(name, *each) for name, each in zip("ab", zip(busy, slots, strict=True), strict=True)]
    key = next(key for key in range(1, 100) if order(rendezvous(key, pair)) == "ab")
    assert place(Ask(prefix_key=key), pair).replica_id == "ab"[chosen]


def test_what_is_above_its_share_keeps_its_order_behind_the_rest() -> None:
    three = [replica("a", 4), replica("b", 2), replica("c", 0)]
    key = next(key for key in range(1, 100) if order(rendezvous(key, three)) == "abc")
    assert order(place(Ask(session_key=key), three).considered) == "bca"


def test_of_two_equal_draws_the_first_is_taken() -> None:
    pair = [replica("a"), replica("b")]
    assert [order(place(Ask(salt=salt), pair).considered) for salt in range(4)] == ["ba", "ba", "ab", "ba"]


def test_a_replica_without_slots_counts_as_one_slot() -> None:
    assert replica("a", busy=1, slots=0).load == 1.0
    assert replica("a", busy=3, slots=2).load == 1.5


def test_what_is_not_told_is_nothing_special() -> None:
    ask, one = Ask(), replica("a")
    assert (ask.session_key, ask.prefix_key, ask.salt) == (0, 0, 0)
    assert (one.priority, one.is_local) == (0, True)
    assert NodeRoom(node_id="n", free_bytes=1).pools == 0
    assert Ticket(number=1).priority == 0


def test_a_verdict_of_nobody_says_none() -> None:
    assert place(Ask(), []).why() == "rule=no_replica; replica=none; considered=none"
    only = place(Ask(), [replica("a", 1)])
    assert (only.rule, only.why()) == (Rule.ONLY, "rule=only; replica=a; considered=a:1/4")


def test_a_pool_that_needs_nothing_or_all_fits_and_weights_break_ties() -> None:
    plain, weights = (
        NodeRoom(node_id="a", free_bytes=8),
        NodeRoom(node_id="b", free_bytes=8, has_weights=True),
    )
    assert place_pool(0, [plain]) == plain
    assert place_pool(8, [plain]) == plain
    assert place_pool(9, [plain]) is None
    for spread in Spread:
        assert place_pool(1, [plain, weights], spread) == weights


def test_nobody_is_sent_away_for_longer_than_a_minute() -> None:
    assert retry_after_s(queued=10_000, slots=1, service_s=60.0) == 60
