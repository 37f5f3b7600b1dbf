import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.errors import InvalidInput
from skep.policy.fit import Demand, ModelShape, Room, fit, kv_cache_bytes, promised

GIB = 1024**3
LLAMA_8B = ModelShape(
    weights_bytes=5 * GIB,
    cache_values_k=32 * 8 * 128,
    cache_values_v=32 * 8 * 128,
    embedding=4096,
    feed_forward=14336,
    vocabulary=128256,
)


def room(free_gib: float, *, total_gib: float = 24, device_id: str = "GPU-a", **facts) -> Room:
    return Room(
        device_id=device_id,
        name="X",
        is_cpu=False,
        total_bytes=int(total_gib * GIB),
        free_bytes=int(free_gib * GIB),
        **facts,
    )


def test_the_cache_of_a_known_model_is_its_known_size() -> None:
    # 8 KV heads × (128 + 128) values × 2 bytes × 32 layers = 128 KiB for each token of Llama 3 8B.
    assert kv_cache_bytes(LLAMA_8B, Demand(slots=1, context=1)) == 131072
    assert kv_cache_bytes(LLAMA_8B, Demand(slots=4, context=8192)) == 4 * GIB
    assert (
        kv_cache_bytes(LLAMA_8B, Demand(slots=4, context=8192, cache_type_k="q8_0", cache_type_v="q8_0"))
        == 4 * GIB * 17 // 32
    )


def test_what_fits_fits_and_the_verdict_names_each_term() -> None:
    verdict = fit(LLAMA_8B, Demand(slots=4, context=8192), [room(24)])
    assert verdict.fits
    for word in ("weights 5.0 GiB", "KV cache 4.0 GiB", "compute", "headroom", "available"):
        assert word in verdict.because


def test_what_does_not_fit_says_which_device_is_short_of_what() -> None:
    rooms = [room(12), room(4, device_id="GPU-b")]
    verdict = fit(LLAMA_8B, Demand(slots=4, context=8192), rooms)
    assert not verdict.fits
    assert verdict.because.startswith("GPU-b: ")
    assert "but only 4.0 GiB is available" in verdict.because
    assert "GPU-a" not in verdict.because


def test_a_split_gives_each_device_its_share_and_the_smallest_caps_it() -> None:
    rooms = [room(24), room(8, total_gib=8, device_id="GPU-b")]
    demand = {"slots": 4, "context": 8192}
    assert fit(LLAMA_8B, Demand(**demand, split=(0.75, 0.25)), rooms).fits
    verdict = fit(LLAMA_8B, Demand(**demand, split=(0.1, 0.9)), rooms)
    assert not verdict.fits
    assert [one.is_enough for one in verdict.devices] == [True, False]


def test_unequal_devices_need_an_explicit_split_and_one_is_suggested() -> None:
    rooms = [room(24), room(8, total_gib=8, device_id="GPU-b")]
    with pytest.raises(InvalidInput, match=r"24\.0 GiB, 8\.0 GiB.*split = \[0\.75, 0\.25\]"):
        fit(LLAMA_8B, Demand(slots=1, context=512), rooms)
    with pytest.raises(InvalidInput, match="2 devices"):
        fit(LLAMA_8B, Demand(slots=1, context=512, split=(1.0,)), rooms)


def test_what_loading_replicas_were_promised_is_not_free() -> None:
    demand = Demand(slots=4, context=8192)
    assert fit(LLAMA_8B, demand, [room(12)]).fits
    assert not fit(LLAMA_8B, demand, [room(12, promised_bytes=3 * GIB)]).fits
    assert promised([(10, 4), (10, 12), (5, 5)]) == 6


@given(
    free=st.integers(0, 200 * GIB),
    slots=st.integers(1, 64),
    context=st.integers(16, 131072),
    share=st.floats(0.01, 0.99),
)
def test_more_memory_or_less_work_never_turns_a_fit_into_none(
    free: int, slots: int, context: int, share: float
) -> None:
    def judge(free_bytes: int, **changes):
        rooms = [
            Room(device_id=name, name=name, is_cpu=False, total_bytes=200 * GIB, free_bytes=free_bytes)
            for name in "ab"
        ]
        wanted = {"slots": slots, "context": context, "split": (share, 1 - share)} | changes
        return fit(LLAMA_8B, Demand(**wanted), rooms)

    verdict = judge(free)
    assert sum(one.weights_bytes for one in verdict.devices) == pytest.approx(LLAMA_8B.weights_bytes, abs=2)
    if verdict.fits:
        assert judge(free + GIB).fits
        assert judge(free, slots=max(1, slots // 2)).fits
        assert judge(free, context=max(16, context // 2)).fits
