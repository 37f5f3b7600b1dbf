"""What a device mask means: text and the devices that are here, in; stable ids in order, out.

Resolved once, when a pool is declared. An index may mean another device after a reboot, a stable id never does.
"""

import re
from collections.abc import Mapping, Sequence

from skep.errors.hive import InvalidMask
from skep.spec.device import Device, DeviceKind, DeviceMask

CPU_ID = "cpu"
_NUMBERED = re.compile(r"(?:gpu|cuda:|fake:)?(?P<index>\d{1,4})", re.IGNORECASE)
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


def resolve(text: str, devices: Sequence[Device]) -> DeviceMask:
    """Return the mask. "auto" takes every accelerator, else the CPU. Raises: InvalidMask, which lists what exists."""
    accelerators = [one for one in devices if one.kind is not DeviceKind.CPU]
    if text.strip().lower() == "auto":
        return DeviceMask(tuple(one.id for one in accelerators) or (CPU_ID,))
    parts = [part.strip() for part in text.split(",")]
    if not text.strip() or not all(parts):
        raise _wrong(text, devices, "is empty" if not text.strip() else "has an empty part")
    ids = tuple(_find(part, text, devices) for part in parts)
    if doubled := sorted({one for one in ids if ids.count(one) > 1}):
        raise _wrong(text, devices, f"names {', '.join(doubled)} twice")
    if CPU_ID in ids and len(ids) > 1:
        raise _wrong(text, devices, "mixes the CPU with accelerators: a pool runs on one or the other")
    return DeviceMask(ids)


def visibility(mask: DeviceMask) -> Mapping[str, str]:
    """Return the environment that hides every device outside the mask from a child; a CPU mask hides all of them."""
    visible = "" if mask.is_cpu else ",".join(mask.ids)
    return dict.fromkeys(_VISIBLE, visible) | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def missing(mask: DeviceMask, devices: Sequence[Device]) -> tuple[str, ...]:
    """Return the devices of the mask that are not here."""
    here = {one.id for one in devices}
    return tuple(one for one in mask.ids if one not in here)


def _find(part: str, text: str, devices: Sequence[Device]) -> str:
    if part.lower() == CPU_ID:
        return CPU_ID
    for one in devices:
        if one.id.lower() == part.lower():
            return one.id
    if numbered := _NUMBERED.fullmatch(part):
        for one in devices:
            if one.kind is not DeviceKind.CPU and one.index == int(numbered["index"]):
                return one.id
    raise _wrong(text, devices, f"names {part!r}, which is not here")


def _wrong(text: str, devices: Sequence[Device], why: str) -> InvalidMask:
    available = tuple(f"{one.index} ({one.id})" for one in devices if one.kind is not DeviceKind.CPU)
    here = (
        f"accelerators {', '.join(available)} and cpu"
        if available
        else "cpu alone (no accelerator was found)"
    )
    return InvalidMask(
        f"the device mask {text!r} {why}; this machine has {here}",
        mask=text,
        available=(*(one.id for one in devices if one.kind is not DeviceKind.CPU), CPU_ID),
    )
