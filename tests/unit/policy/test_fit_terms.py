"""Each term of the sum and each constant of the fit, by hand: a mutation run found that sums alone hold too little."""

import pytest

from skep.errors import InvalidInput
from skep.policy.fit import (
    CACHE_BYTES,
    Demand,
    DeviceNeed,
    ModelShape,
    Room,
    compute_bytes,
    fit,
    headroom_bytes,
    kv_cache_bytes,
    promised,
)

MIB, GIB = 1024**2, 1024**3
SHAPE = ModelShape(
    weights_bytes=1000, cache_values_k=10, cache_values_v=30, embedding=100, feed_forward=200, vocabulary=5000
)


def room(total_bytes: int, free_bytes: int = 0, *, is_cpu: bool = False, **facts) -> Room:
    return Room(
        device_id="d", name="X", is_cpu=is_cpu, total_bytes=total_bytes, free_bytes=free_bytes, **facts
    )


@pytest.mark.parametrize(
    ("kind", "block_bytes", "block_values"),
    [("f32", 4, 1), ("f16", 2, 1), ("bf16", 2, 1), ("q8_0", 34, 32), ("q4_0", 18, 32)],
)
def test_each_type_of_cache_has_its_block_size(kind: str, block_bytes: int, block_values: int) -> None:
    demand = Demand(slots=3, context=320, cache_type_k=kind, cache_type_v=kind)
    assert kv_cache_bytes(SHAPE, demand) == 40 * 320 * 3 * block_bytes // block_values
    assert set(CACHE_BYTES) == {"f32", "f16", "bf16", "q8_0", "q4_0"}


def test_keys_and_values_are_counted_each_with_its_own_type() -> None:
    demand = Demand(slots=1, context=1, cache_type_k="f32", cache_type_v="f16")
    assert kv_cache_bytes(SHAPE, demand) == 10 * 4 + 30 * 2


def test_a_batch_of_512_rows_holds_logits_and_the_widest_layer_as_floats() -> None:
    assert compute_bytes(SHAPE) == 512 * (5000 + 2 * 200 + 6 * 100) * 4


def test_headroom_is_three_in_a_hundred_and_at_least_the_drivers_floor() -> None:
    assert headroom_bytes(room(100 * GIB)) == 3 * GIB
    assert headroom_bytes(room(GIB)) == 256 * MIB
    assert headroom_bytes(room(100 * GIB, is_cpu=True)) == 3 * GIB
    assert headroom_bytes(room(GIB, is_cpu=True)) == 64 * MIB


def test_what_is_available_is_never_below_nothing() -> None:
    assert room(10, 7).available_bytes == 7
    assert room(10, 7, promised_bytes=3).available_bytes == 4
    assert room(10, 7, promised_bytes=9).available_bytes == 0
    assert promised([(3, 5)]) == 0


def test_the_need_is_the_sum_of_its_terms_and_what_is_just_enough_is_enough() -> None:
    need = DeviceNeed(
        device_id="d", share=1, weights_bytes=1, kv_cache_bytes=20, compute_bytes=300, headroom_bytes=4000, available_bytes=4321
    )  # fmt: skip
    assert need.needed_bytes == 4321
    assert need.is_enough
    demand = Demand(slots=1, context=1, cache_type_k="f32", cache_type_v="f32")
    verdict = fit(SHAPE, demand, [room(GIB, GIB)])
    assert verdict.needed_bytes == 1000 + 160 + compute_bytes(SHAPE) + 256 * MIB
    short = fit(SHAPE, demand, [room(GIB, verdict.needed_bytes - 1)])
    assert fit(SHAPE, demand, [room(GIB, verdict.needed_bytes)]).fits
    assert not short.fits


def test_all_devices_together_are_what_one_replica_needs() -> None:
    two = fit(SHAPE, Demand(slots=1, context=1), [room(GIB, GIB), room(GIB, GIB)])
    assert two.needed_bytes == sum(each.needed_bytes for each in two.devices)
    assert [each.share for each in two.devices] == [0.5, 0.5]
    assert [each.weights_bytes for each in two.devices] == [500, 500]


@pytest.mark.parametrize(("larger", "is_equal"), [(1250, True), (1251, False), (2000, False)])
def test_devices_are_unequal_beyond_a_quarter(larger: int, is_equal: bool) -> None:
    rooms = [room(1000 * MIB, GIB), room(larger * MIB, 2 * GIB)]
    if is_equal:
        assert fit(SHAPE, Demand(slots=1, context=1), rooms).fits
    else:
        with pytest.raises(InvalidInput, match="unequal"):
            fit(SHAPE, Demand(slots=1, context=1), rooms)


def test_a_header_that_does_not_tell_its_context_has_none() -> None:
    assert SHAPE.context_train == 0


def test_a_suggested_split_sums_to_one() -> None:
    rooms = [room(size * GIB) for size in (3, 3, 1)]
    with pytest.raises(InvalidInput, match=r"split = \[0\.43, 0\.43, 0\.14\]"):
        fit(SHAPE, Demand(slots=1, context=1), rooms)


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (MIB - 1, "1024.0 KiB"),
        (MIB, "1.0 MiB"),
        (GIB, "1.0 GiB"),
    ],
)
def test_sizes_are_told_with_a_unit_that_fits(size: int, told: str) -> None:
    verdict = fit(SHAPE, Demand(slots=1, context=1), [room(GIB, size)])
    assert f"{told} is available" in verdict.because
