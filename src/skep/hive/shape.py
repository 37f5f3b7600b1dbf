"""From a model's file to the terms of its memory: what the header says, and whether it would fit here now."""

from collections.abc import Sequence
from pathlib import Path

from skep.hive.devices.inventory import Inventory
from skep.policy import mask as masks
from skep.policy.fit import Demand, FitVerdict, ModelShape, fit
from skep.runtime.gguf import preflight, weights_bytes
from skep.runtime.gguf.header import Header
from skep.spec.config import FakeDeviceConfig
from skep.spec.pool import check_split


def read_shape(path: Path) -> tuple[Header, ModelShape]:
    """Return a GGUF file's header, and what the fit policy needs of it; of a split model, all parts are counted.

    Raises: ModelLoadFailed and its kinds, ModelNotFound.
    """
    header = preflight(path)
    terms = header.memory_terms()
    return header, ModelShape(
        weights_bytes=weights_bytes(path, header),
        cache_values_k=terms.cache_elements_k,
        cache_values_v=terms.cache_elements_v,
        embedding=terms.embedding_size,
        feed_forward=header.integer("feed_forward_length", 4 * terms.embedding_size),
        vocabulary=terms.vocab_size,
        context_train=terms.context_train,
    )


async def judge_here(
    shape: ModelShape, demand: Demand, *, devices: str, fakes: Sequence[FakeDeviceConfig]
) -> FitVerdict:
    """Return whether one replica would fit on these devices of this machine now. Raises: InvalidMask, InvalidInput."""
    inventory = Inventory.of_this_machine(fakes)
    mask = masks.resolve(devices, await inventory.refresh())
    check_split(demand.split, devices=len(mask.ids))
    return fit(shape, demand, inventory.rooms(mask))
