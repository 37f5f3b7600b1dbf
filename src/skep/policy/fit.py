"""Whether a model fits into the memory that is free, and what each term of the sum is.

need = weights + KV cache + compute buffers + headroom, on each device of the mask by its share. What is free is what
the vendor reports, less what replicas that are still loading have been promised and not yet taken, so that our own
workers are counted once and two loads at a time do not both see the same free memory.
"""

from collections.abc import Iterable, Sequence

import msgspec

from skep.errors import InvalidInput

_MIB = 1024**2
BATCH_ROWS = 512
HEADROOM_SHARE = 0.03
HEADROOM_ACCELERATOR_BYTES = 256 * _MIB
HEADROOM_CPU_BYTES = 64 * _MIB
UNEQUAL_RATIO = 1.25
"""Devices whose memories differ by more than this factor need an explicit split."""

CACHE_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
"""Bytes for one cached value; the quantised types hold blocks of 32 (ggml-common.h, block_q8_0 and block_q4_0)."""


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """What the header of a model's file says. Cached values are counted for one token, over all heads and layers."""

    weights_bytes: int
    cache_values_k: int
    cache_values_v: int
    embedding: int
    feed_forward: int
    vocabulary: int
    context_train: int = 0


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """How a replica of it would be run."""

    slots: int
    context: int
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    split: tuple[float, ...] = ()


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """A device of the mask, and what it has. `promised_bytes`: to replicas that are still loading."""

    device_id: str
    name: str
    is_cpu: bool
    total_bytes: int
    free_bytes: int
    promised_bytes: int = 0

    @property
    def available_bytes(self) -> int:
        """What a new replica can count on."""
        return max(self.free_bytes - self.promised_bytes, 0)


class DeviceNeed(msgspec.Struct, frozen=True, kw_only=True):
    """The terms on one device, in bytes."""

    device_id: str
    share: float
    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int
    headroom_bytes: int
    available_bytes: int

    @property
    def needed_bytes(self) -> int:
        """The sum of the terms."""
        return self.weights_bytes + self.kv_cache_bytes + self.compute_bytes + self.headroom_bytes

    @property
    def is_enough(self) -> bool:
        """True when the device has that much."""
        return self.needed_bytes <= self.available_bytes


class FitVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether it fits, each device's terms, and one line for people."""

    fits: bool
    devices: tuple[DeviceNeed, ...]
    because: str

    @property
    def needed_bytes(self) -> int:
        """What one replica needs on all devices together."""
        return sum(one.needed_bytes for one in self.devices)


def fit(shape: ModelShape, demand: Demand, rooms: Sequence[Room]) -> FitVerdict:
    """Return the verdict. Raises: InvalidInput when unequal devices have no split, or the split is no split of them."""
    shares = _shares(demand.split, rooms)
    kv_bytes = kv_cache_bytes(shape, demand)
    compute = compute_bytes(shape)
    needs = tuple(
        DeviceNeed(
            device_id=room.device_id,
            share=share,
            weights_bytes=round(shape.weights_bytes * share),
            kv_cache_bytes=round(kv_bytes * share),
            compute_bytes=compute,
            headroom_bytes=headroom_bytes(room),
            available_bytes=room.available_bytes,
        )
        for share, room in zip(shares, rooms, strict=True)
    )
    return FitVerdict(fits=all(one.is_enough for one in needs), devices=needs, because=_because(needs))


def kv_cache_bytes(shape: ModelShape, demand: Demand) -> int:
    """Return the cache: values of one token (layers × heads × head size, keys and values) × context × slots."""
    for_one_token = (
        shape.cache_values_k * CACHE_BYTES[demand.cache_type_k]
        + shape.cache_values_v * CACHE_BYTES[demand.cache_type_v]
    )
    return round(for_one_token * demand.context * demand.slots)


def compute_bytes(shape: ModelShape) -> int:
    """Return the buffers of one batch: its logits, and the widest activations of a layer, as 32-bit floats."""
    widest = shape.vocabulary + 2 * shape.feed_forward + 6 * shape.embedding
    return BATCH_ROWS * widest * 4


def headroom_bytes(room: Room) -> int:
    """Return what is left alone: a driver's own, fragmentation, and the rest of the machine."""
    floor = HEADROOM_CPU_BYTES if room.is_cpu else HEADROOM_ACCELERATOR_BYTES
    return max(round(room.total_bytes * HEADROOM_SHARE), floor)


def promised(needed: Iterable[tuple[int, int]]) -> int:
    """Return what loading replicas will still take: the sum of (needed − taken already), none below zero."""
    return sum(max(need - taken, 0) for need, taken in needed)


def _shares(split: Sequence[float], rooms: Sequence[Room]) -> tuple[float, ...]:
    if split:
        if len(split) != len(rooms):
            raise InvalidInput(f"split has {len(split)} shares for {len(rooms)} devices", split=tuple(split))
        return tuple(split)
    sizes = [room.total_bytes for room in rooms]
    if sizes and max(sizes) > min(sizes) * UNEQUAL_RATIO:
        raise InvalidInput(
            f"the devices of the mask are unequal ({', '.join(map(_size, sizes))}): say how to split the model, "
            f"for example split = [{', '.join(_suggested(sizes))}]",
            sizes=tuple(sizes),
        )
    return tuple(1 / len(rooms) for _ in rooms)


def _suggested(sizes: Sequence[int]) -> list[str]:
    shares = [round(size / sum(sizes), 2) for size in sizes]
    shares[-1] = round(1 - sum(shares[:-1]), 2)
    return [f"{share:g}" for share in shares]


def _because(needs: Sequence[DeviceNeed]) -> str:
    short = [one for one in needs if not one.is_enough]
    told = short or needs
    return "; ".join(
        f"{one.device_id}: weights {_size(one.weights_bytes)} + KV cache {_size(one.kv_cache_bytes)} + "
        f"compute {_size(one.compute_bytes)} + headroom {_size(one.headroom_bytes)} = {_size(one.needed_bytes)}, "
        f"{'but only ' if short else ''}{_size(one.available_bytes)} is available"
        for one in told
    )


def _size(count: int) -> str:
    """Return bytes with a unit that keeps small ones apart from zero."""
    for unit, size in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
