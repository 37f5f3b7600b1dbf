"""A pool: one model on one engine on one device mask, with N replicas."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from skep.errors import InvalidInput
from skep.spec.ids import Id

REPLICAS_MAX = 64
SLOTS_MAX = 256
CONTEXT_MAX = 4 * 1024 * 1024
SPLIT_TOLERANCE = 1e-6

Backend = Literal["llama", "fake"]


class PoolSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[pool]]` of skep.toml, or what `POST /v2/pools` declares.

    `model` is the name of a `[[model]]`, or a reference; `engine` the id of an `[[engine]]`; `devices` a mask ("0,1",
    "cuda:0", a UUID, "cpu"; "auto" takes every accelerator that is here, else the CPU). `context` is tokens for each of
    `slots`. `ttl_s`: unload after so many idle seconds, and load again on demand. `name` is what clients ask for;
    by default the model's name. `backend` chooses what the engine `skep` computes with.
    """

    id: Id
    model: Annotated[str, Meta(min_length=1, max_length=4096)]
    engine: Id = "skep"
    devices: Annotated[str, Meta(min_length=1, max_length=4096)] = "auto"
    split: Annotated[tuple[Annotated[float, Meta(gt=0, le=1)], ...], Meta(max_length=64)] = ()
    replicas: Annotated[int, Meta(ge=1, le=REPLICAS_MAX)] = 1
    slots: Annotated[int, Meta(ge=1, le=SLOTS_MAX)] = 4
    context: Annotated[int, Meta(ge=16, le=CONTEXT_MAX)] = 4096
    ttl_s: Annotated[float, Meta(gt=0)] | None = None
    deterministic: bool = False
    backend: Backend = "llama"
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0
    node: str | None = None
    name: str = ""
    aliases: tuple[str, ...] = ()


def check_split(split: tuple[float, ...], *, devices: int) -> None:
    """Check that a split has a share for each device of the mask and sums to 1. Raises: InvalidInput."""
    if not split:
        return
    if len(split) != devices:
        raise InvalidInput(
            f"split has {len(split)} shares and the mask has {devices} devices: give one share for each",
            split=split,
        )
    if abs(sum(split) - 1) > SPLIT_TOLERANCE:
        raise InvalidInput(f"split sums to {sum(split):g}: its shares must sum to 1", split=split)
