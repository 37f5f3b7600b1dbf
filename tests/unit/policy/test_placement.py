"""Placement: order, bounds and reasons."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.errors import InvalidInput
from skep.policy.placement import (
    BLOCK_BYTES,
    BLOCKS_MAX,
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


def replica(name: str, busy: int = 0, slots: int = 4, **more) -> ReplicaLoad:
    return ReplicaLoad(replica_id=name, busy=busy, slots_total=slots, **more)


def test_no_replica_is_told_apart_from_all_full():
    assert place(Ask(), []).rule is Rule.NO_REPLICA
    full = place(Ask(), [replica("a", 5), replica("b", 7)])
    assert (full.replica_id, full.rule) == (None, Rule.SATURATED)
    assert "a:5/4" in full.why()


def test_one_replica_above_its_slots_hides_the_round_trip_and_two_do_not():
    assert place(Ask(), [replica("a", 4)]).replica_id == "a"
    assert place(Ask(), [replica("a", 5)]).replica_id is None


def test_an_excluded_replica_is_never_chosen():
    for salt in range(50):
        ask = Ask(excluded=frozenset({"a"}), salt=salt, prefix_key=salt)
        assert place(ask, [replica("a"), replica("b"), replica("c")]).replica_id != "a"


def test_two_choices_takes_the_less_loaded_of_two():
    for salt in range(50):
        assert place(Ask(salt=salt), [replica("a", 3), replica("b", 0)]).replica_id == "b"


def test_load_is_per_slot_so_a_large_replica_takes_more():
    assert place(Ask(), [replica("small", 2, 2), replica("large", 4, 16)]).replica_id == "large"


def test_two_choices_is_even_over_equal_replicas():
    names = Counter(place(Ask(salt=salt), [replica(n) for n in "abcde"]).replica_id for salt in range(5_000))
    assert min(names.values()) > 850


def test_higher_pool_priority_wins_until_it_is_full():
    rich, poor = replica("rich", 4, priority=2), replica("poor", 0, priority=1)
    assert place(Ask(), [rich, poor]).replica_id == "rich"
    assert place(Ask(), [replica("rich", 5, priority=2), poor]).replica_id == "poor"


def test_local_weights_are_preferred_while_they_have_room():
    here, there = replica("here", 3, is_local=True), replica("there", 0, is_local=False)
    assert place(Ask(), [here, there]).replica_id == "here"
    assert place(Ask(), [replica("here", 9, is_local=True), there]).replica_id == "there"


def test_one_prefix_goes_to_one_replica_and_many_spread():
    crowd = [replica(name) for name in "abcdef"]
    assert {place(Ask(prefix_key=7, salt=salt), crowd).replica_id for salt in range(20)} == {
        rendezvous(7, crowd)[0].replica_id
    }
    homes = Counter(place(Ask(prefix_key=key), crowd).replica_id for key in range(1, 3_001))
    assert min(homes.values()) > 350


def test_a_popular_prefix_spills_to_the_next_of_its_order():
    crowd = [replica(name, slots=8) for name in "abc"]
    order = [one.replica_id for one in rendezvous(9, crowd)]
    busy = {order[0]: 6, order[1]: 0, order[2]: 0}
    loaded = [replica(name, count, 8) for name, count in busy.items()]
    assert place(Ask(prefix_key=9), loaded).replica_id == order[1]


def test_a_session_outranks_a_prefix():
    crowd = [replica(name) for name in "abcd"]
    verdict = place(Ask(session_key=text_key("me"), prefix_key=3), crowd)
    assert verdict.rule is Rule.SESSION
    assert verdict.replica_id == rendezvous(text_key("me"), crowd)[0].replica_id


@given(st.integers(1, 2**63), st.sets(st.text(min_size=1, max_size=8), min_size=2, max_size=12))
def test_losing_a_replica_moves_only_its_own_keys(key, names):
    crowd = [replica(name) for name in sorted(names)]
    home, *_ = order = rendezvous(key, crowd)
    for gone in order[1:]:
        assert rendezvous(key, [one for one in crowd if one != gone])[0] == home


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 8), st.integers(0, 2)), max_size=10),
    st.integers(0, 2**64),
    st.integers(0, 2**64),
)
def test_the_chosen_one_always_has_room_and_equal_input_gives_an_equal_verdict(rows, salt, key):
    crowd = [replica(f"r{i}", busy, slots, priority=p) for i, (busy, slots, p) in enumerate(rows)]
    ask = Ask(salt=salt, prefix_key=key)
    verdict = place(ask, crowd)
    assert verdict == place(ask, crowd)
    if verdict.replica_id is None:
        assert all(one.busy > one.slots_total for one in crowd)
    else:
        chosen = next(one for one in crowd if one.replica_id == verdict.replica_id)
        assert chosen.busy <= chosen.slots_total


def test_the_prefix_key_reads_leading_full_blocks_only():
    block = b"x" * BLOCK_BYTES
    assert prefix_key(block[:-1]) == 0
    assert prefix_key(block + b"tail") == prefix_key(block)
    assert prefix_key(block * BLOCKS_MAX + b"one") == prefix_key(block * BLOCKS_MAX * 2)
    assert prefix_key(block * 2) != prefix_key(block)


def room(name: str, free: int, pools: int = 0, **more) -> NodeRoom:
    return NodeRoom(node_id=name, free_bytes=free, pools=pools, **more)


def test_spreading_takes_the_emptiest_node_and_packing_the_tightest():
    nodes = [room("a", 10, pools=2), room("b", 6, pools=0), room("c", 5, pools=1)]
    assert place_pool(4, nodes).node_id == "b"
    assert place_pool(4, nodes, Spread.PACK).node_id == "c"
    assert place_pool(7, nodes).node_id == "a"
    assert place_pool(11, nodes) is None


def test_weights_at_hand_break_a_tie_and_then_the_id_does():
    assert place_pool(1, [room("a", 5), room("b", 5, has_weights=True)]).node_id == "b"
    assert place_pool(1, [room("b", 5), room("a", 5)]).node_id == "a"


def test_a_negative_need_is_refused():
    with pytest.raises(InvalidInput):
        place_pool(-1, [])
