"""A device mask as the library sees it: which devices stay visible, and under what indices.

The library numbers the devices that it can see from 0. So the mask becomes CUDA_VISIBLE_DEVICES and its like, before the library
is loaded, and nothing outside the mask exists for this process. A CPU mask hides every device.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from skep.errors import InvalidConfig
from skep.errors.runtime import DeviceMissing
from skep.policy.mask import visibility
from skep.spec.device import DeviceMask

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
_INDEX: Final = re.compile(r"(?:gpu|cuda:)?(?P<index>\d{1,3})", re.IGNORECASE)
_UUID: Final = re.compile(r"(?:GPU|MIG)-[0-9A-Za-z\-]{4,64}")
_FAKE: Final = re.compile(r"(?:fake:?|FAKE-)[\w\-]{1,64}")


class Visible(NamedTuple):
    """The environment that makes the mask true, and the library's indices of its devices."""

    environment: dict[str, str]
    indices: tuple[int, ...]


def resolve(mask: str, environment: Mapping[str, str]) -> Visible:
    """Return what the mask means, given what the parent process left visible.

    Raises: InvalidConfig (empty, doubled or unreadable), DeviceMissing (hidden by the parent).
    """
    items = [item.strip() for item in mask.split(",") if item.strip()]
    if not items:
        raise InvalidConfig("the device mask is empty: say cpu, or devices such as 0,1")
    if items == ["cpu"]:
        return Visible(dict(visibility(DeviceMask(("cpu",)))), ())
    if "cpu" in items:
        raise InvalidConfig(f"the device mask {mask!r} mixes the CPU with devices; say one or the other")
    parent = environment.get(VISIBLE)
    visible = [one.strip() for one in parent.split(",") if one.strip()] if parent is not None else None
    chosen = [_choose(item, visible) for item in items]
    if len(set(chosen)) != len(chosen):
        raise InvalidConfig(f"the device mask {mask!r} names a device twice")
    return Visible(dict(visibility(DeviceMask(tuple(chosen)))), tuple(range(len(chosen))))


def check_split(split: tuple[float, ...], indices: tuple[int, ...]) -> None:
    """Refuse a split that has not one share for each device. Raises: InvalidConfig."""
    if split and len(split) != len(indices):
        raise InvalidConfig(f"--split has {len(split)} shares for {len(indices)} devices of the mask")


def _choose(item: str, visible: list[str] | None) -> str:
    if visible is not None and item in visible:
        return item  # Whoever started us has named it so.
    if _UUID.fullmatch(item) or _FAKE.fullmatch(item):
        if visible is not None and item not in visible:
            raise DeviceMissing(f"device {item} is hidden by {VISIBLE}={','.join(visible)}", device=item)
        return item
    match = _INDEX.fullmatch(item)
    if match is None:
        raise InvalidConfig(f"{item!r} is no device: use an index, cuda:N, a UUID (GPU-…), or cpu")
    index = int(match["index"])
    if visible is None:
        return str(index)
    if index >= len(visible):
        raise DeviceMissing(
            f"device {index} does not exist: {VISIBLE} leaves {len(visible)} visible", device=item
        )
    return visible[index]
