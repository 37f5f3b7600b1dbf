"""Masks become what the library may see, and nothing else is visible."""

import pytest

from skep.errors import InvalidConfig
from skep.errors.runtime import DeviceMissing
from skep.worker.devices import VISIBLE, check_split, resolve

UUID_A, UUID_B = "GPU-11111111-aaaa", "GPU-22222222-bbbb"


@pytest.mark.parametrize(
    ("mask", "parent", "visible", "indices"),
    [
        ("cpu", None, "", ()),
        ("cpu", "0,1", "", ()),
        ("0", None, "0", (0,)),
        ("1,0", None, "1,0", (0, 1)),
        ("GPU0,GPU1", None, "0,1", (0, 1)),
        ("cuda:2", None, "2", (0,)),
        (UUID_A, None, UUID_A, (0,)),
        (f"{UUID_B},{UUID_A}", f"{UUID_A},{UUID_B}", f"{UUID_B},{UUID_A}", (0, 1)),
        ("1", f"{UUID_A},{UUID_B}", UUID_B, (0,)),
        ("0", "3", "3", (0,)),
        ("my-device", "other,my-device", "my-device", (0,)),
        ("3", "3", "3", (0,)),
        ("fake:0", None, "fake:0", (0,)),
    ],
)
def test_masks(mask, parent, visible, indices):
    environment = {} if parent is None else {VISIBLE: parent}
    found = resolve(mask, environment)
    assert (found.environment[VISIBLE], found.environment["HIP_VISIBLE_DEVICES"], found.indices) == (
        visible,
        visible,
        indices,
    )


@pytest.mark.parametrize("mask", ["", " , ", "cpu,0", "0,0", "GPU0,0", "banana", "-1", "0;1"])
def test_masks_that_mean_nothing_are_refused(mask):
    with pytest.raises(InvalidConfig):
        resolve(mask, {})


@pytest.mark.parametrize(("mask", "parent"), [("1", "0"), (UUID_A, UUID_B), ("0", "")])
def test_a_device_that_the_parent_hid_is_missing(mask, parent):
    with pytest.raises(DeviceMissing):
        resolve(mask, {VISIBLE: parent})


def test_a_split_has_a_share_for_each_device():
    check_split((), (0, 1))
    check_split((0.6, 0.4), (0, 1))
    with pytest.raises(InvalidConfig):
        check_split((0.6, 0.4), (0,))
