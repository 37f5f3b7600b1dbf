"""Whether a library's structures are ones that we know. Nothing is loaded into it before this has passed.

A function that returns a large structure writes it through a hidden pointer (System V and AArch64 ABIs). Called with
a pointer to a poisoned buffer, it shows how many bytes it writes; known defaults then show that the fields lie where
we think they do.
"""

import ctypes
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from skep.errors.runtime import AbiMismatch
from skep.runtime.llama import layout

PROBE_BYTES: Final = 512
POISONS: Final = (0x00, 0xA5)

StructWriter = Callable[[Any], object]


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """What the probe found: sizes as written by the library, and the matching structures."""

    model_bytes: int
    context_bytes: int
    model_params: type[ctypes.Structure]
    context_params: type[ctypes.Structure]


def written_bytes(write: StructWriter) -> int:
    """Return how many bytes `write` puts into the buffer whose address it is given; 0 when it writes nothing."""
    seen: list[bytes] = []
    for poison in POISONS:
        buffer = ctypes.create_string_buffer(bytes([poison]) * PROBE_BYTES, PROBE_BYTES)
        write(ctypes.addressof(buffer))
        seen.append(buffer.raw)
    agreeing = [index for index in range(PROBE_BYTES) if seen[0][index] == seen[1][index]]
    return agreeing[-1] + 1 if agreeing else 0


def read_struct(write: StructWriter, kind: type[ctypes.Structure]) -> ctypes.Structure:
    """Return what `write` puts down, as a `kind`; bytes that it leaves alone are zero."""
    buffer = ctypes.create_string_buffer(PROBE_BYTES)
    write(ctypes.addressof(buffer))
    return kind.from_buffer_copy(buffer.raw[: ctypes.sizeof(kind)])


def probe(*, path: str, model: StructWriter, context: StructWriter, batch: StructWriter) -> Layout:
    """Return the layout of a library, by what its default functions write. Raises: AbiMismatch."""
    model_bytes, context_bytes, batch_bytes = (written_bytes(write) for write in (model, context, batch))
    model_params = layout.MODEL_LAYOUTS.get(model_bytes)
    context_params = layout.CONTEXT_LAYOUTS.get(context_bytes)
    if model_params is None:
        raise _unknown_size(path, "llama_model_params", model_bytes, known=tuple(layout.MODEL_LAYOUTS))
    if context_params is None:
        raise _unknown_size(path, "llama_context_params", context_bytes, known=tuple(layout.CONTEXT_LAYOUTS))
    if batch_bytes != layout.BATCH_BYTES:
        raise _unknown_size(path, "llama_batch", batch_bytes, known=(layout.BATCH_BYTES,))
    _check_defaults(path, read_struct(model, model_params), layout.MODEL_DEFAULTS)
    _check_defaults(path, read_struct(context, context_params), layout.CONTEXT_DEFAULTS)
    return Layout(
        model_bytes=model_bytes,
        context_bytes=context_bytes,
        model_params=model_params,
        context_params=context_params,
    )


def _check_defaults(path: str, found: ctypes.Structure, known: Mapping[str, object]) -> None:
    wrong = {field: getattr(found, field) for field, value in known.items() if getattr(found, field) != value}
    if wrong:
        text = ", ".join(f"{field}={value!r}" for field, value in sorted(wrong.items()))
        raise AbiMismatch(
            f"{path}: unexpected defaults in {type(found).__name__} ({text}); use a library provider that skep knows",
            path=path,
            fields=wrong,
        )


def _unknown_size(path: str, structure: str, size: int, *, known: tuple[int, ...]) -> AbiMismatch:
    expected = " or ".join(map(str, known))
    return AbiMismatch(
        f"{path}: {structure} has {size} bytes, skep knows {expected}; use a library provider that skep knows",
        path=path,
        structure=structure,
        size=size,
    )
