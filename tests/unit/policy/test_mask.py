import pytest

from skep.errors.hive import InvalidMask
from skep.policy.mask import missing, resolve, visibility
from skep.spec.device import Device, DeviceKind, DeviceMask


def device(index: int, device_id: str, kind: DeviceKind = DeviceKind.CUDA) -> Device:
    return Device(
        id=device_id,
        kind=kind,
        index=index,
        name="X",
        memory_total_bytes=1,
        memory_used_bytes=0,
        memory_free_bytes=1,
    )


CPU = device(0, "cpu", DeviceKind.CPU)
HERE = [CPU, device(0, "GPU-aaaa"), device(1, "GPU-bbbb")]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("0,1", ("GPU-aaaa", "GPU-bbbb")),
        ("1,0", ("GPU-bbbb", "GPU-aaaa")),
        ("GPU0, GPU1", ("GPU-aaaa", "GPU-bbbb")),
        ("cuda:1", ("GPU-bbbb",)),
        ("gpu-BBBB", ("GPU-bbbb",)),
        ("cpu", ("cpu",)),
        ("auto", ("GPU-aaaa", "GPU-bbbb")),
    ],
)
def test_a_mask_becomes_stable_ids_in_its_order(text: str, ids: tuple[str, ...]) -> None:
    assert resolve(text, HERE) == DeviceMask(ids)


def test_auto_is_the_cpu_where_there_is_nothing_else() -> None:
    assert resolve("auto", [CPU]).is_cpu


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("  ", "empty"),
        (",", "empty part"),
        ("0,", "empty part"),
        ("0,0", "twice"),
        ("0,GPU-aaaa", "GPU-aaaa twice"),
        ("2", "not here"),
        ("GPU-cccc", "not here"),
        ("cpu,0", "mixes"),
        ("cuda:-1", "not here"),
        ("tpu:0", "not here"),
    ],
)
def test_a_wrong_mask_says_why_and_lists_what_exists(text: str, why: str) -> None:
    with pytest.raises(InvalidMask, match=why) as caught:
        resolve(text, HERE)
    assert "0 (GPU-aaaa), 1 (GPU-bbbb) and cpu" in str(caught.value)
    assert caught.value.available == ("GPU-aaaa", "GPU-bbbb", "cpu")


def test_a_gpu_is_asked_for_where_there_is_none() -> None:
    with pytest.raises(InvalidMask, match="no accelerator was found"):
        resolve("0", [CPU])


def test_a_child_sees_its_mask_and_nothing_else() -> None:
    seen = visibility(DeviceMask(("GPU-b", "GPU-a")))
    assert seen["CUDA_VISIBLE_DEVICES"] == "GPU-b,GPU-a"
    assert visibility(DeviceMask(("cpu",)))["CUDA_VISIBLE_DEVICES"] == ""
    assert visibility(DeviceMask(("cpu",)))["HIP_VISIBLE_DEVICES"] == ""


def test_a_device_that_is_gone_is_named() -> None:
    assert missing(DeviceMask(("GPU-aaaa", "GPU-cccc")), HERE) == ("GPU-cccc",)
