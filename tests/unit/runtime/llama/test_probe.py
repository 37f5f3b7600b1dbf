"""The ABI probe over libraries that are Python functions: known layouts pass, everything else is refused."""

import ctypes

import pytest

from skep.errors.runtime import AbiMismatch
from skep.runtime.llama import layout
from skep.runtime.llama.probe import probe, read_struct, written_bytes

KNOWN = {**layout.CONTEXT_DEFAULTS}


def writer(kind: type[ctypes.Structure], size: int, **changes: object):
    """Return a C-like function that writes `size` bytes of a `kind` with known defaults."""
    value = kind()
    defaults = layout.MODEL_DEFAULTS if kind is layout.ModelParams else layout.CONTEXT_DEFAULTS
    for field, default in {**(defaults if kind is not layout.Batch else {}), **changes}.items():
        setattr(value, field, default)

    def write(address: int) -> None:
        ctypes.memmove(address, ctypes.addressof(value), min(size, ctypes.sizeof(kind)))
        if size > ctypes.sizeof(kind):
            ctypes.memset(address + ctypes.sizeof(kind), 0, size - ctypes.sizeof(kind))

    return write


def run_probe(
    *, context_bytes: int = 168, model_bytes: int = 78, batch_bytes: int = 56, context=None, model=None
):
    kind = layout.CONTEXT_LAYOUTS.get(context_bytes, layout.CONTEXT_LAYOUTS[168])
    return probe(
        path="libfake.so",
        model=model or writer(layout.ModelParams, model_bytes),
        context=context or writer(kind, context_bytes),
        batch=writer(layout.Batch, batch_bytes),
    )


@pytest.mark.parametrize("size", [0, 1, 78, 160, 168, 511])
def test_written_bytes_counts_what_the_function_wrote(size: int) -> None:
    def write(address: int) -> None:
        ctypes.memset(address, 0x11, size)

    assert written_bytes(write) == size


def test_written_bytes_sees_past_a_hole_that_is_not_written() -> None:
    def write(address: int) -> None:
        ctypes.memset(address, 1, 8)
        ctypes.memset(address + 16, 1, 8)

    assert written_bytes(write) == 24


@pytest.mark.parametrize("size", sorted(layout.CONTEXT_LAYOUTS))
def test_a_known_layout_is_recognised(size: int) -> None:
    found = run_probe(context_bytes=size)
    assert (found.context_bytes, found.model_bytes) == (size, 78)
    assert found.context_params is layout.CONTEXT_LAYOUTS[size]
    assert ctypes.sizeof(found.context_params) == size


@pytest.mark.parametrize("size", [0, 152, 161, 176, 200])
def test_an_unknown_context_size_is_refused(size: int) -> None:
    with pytest.raises(AbiMismatch) as caught:
        run_probe(context_bytes=size)
    assert caught.value.structure == "llama_context_params"
    assert caught.value.size == size
    assert "libfake.so" in str(caught.value)


def test_an_unknown_model_or_batch_size_is_refused() -> None:
    with pytest.raises(AbiMismatch, match="llama_model_params"):
        run_probe(model_bytes=86)
    with pytest.raises(AbiMismatch, match="llama_batch"):
        run_probe(batch_bytes=48)


@pytest.mark.parametrize("field", sorted(layout.CONTEXT_DEFAULTS))
def test_every_known_default_is_checked(field: str) -> None:
    default = layout.CONTEXT_DEFAULTS[field]
    other = 4096 if default is None else (not default if isinstance(default, bool) else default + 7)
    with pytest.raises(AbiMismatch) as caught:
        run_probe(context=writer(layout.CONTEXT_LAYOUTS[168], 168, **{field: other}))
    assert set(caught.value.fields) == {field}


def test_a_boolean_that_moved_by_a_byte_is_noticed() -> None:
    sound = read_struct(writer(layout.CONTEXT_LAYOUTS[168], 168), layout.CONTEXT_LAYOUTS[168])
    raw = bytearray(bytes(sound))
    at = layout.CONTEXT_LAYOUTS[168].embeddings.offset
    raw[at : at + 7] = b"\0" + raw[at : at + 6]

    def write(address: int) -> None:
        ctypes.memmove(address, bytes(raw), 168)

    with pytest.raises(AbiMismatch, match="unexpected defaults"):
        run_probe(context=write)


def test_a_model_default_that_differs_is_refused() -> None:
    with pytest.raises(AbiMismatch, match="use_extra_bufts"):
        run_probe(model=writer(layout.ModelParams, 78, use_extra_bufts=False))
