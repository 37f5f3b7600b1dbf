"""Bytes to a header. Pure, bounded, and never wrong by an exception of Python's own.

A file's header is parsed from a prefix of the file; `Incomplete` says that the prefix was too short.
"""

import re
import struct
from typing import Any, Final

from skep.errors import SkepError
from skep.errors.runtime import GgufMalformed, GgufTruncated, NotAGguf
from skep.runtime.gguf.header import ArrayValue, Header, Tensor
from skep.runtime.gguf.tables import (
    ARRAY,
    DEFAULT_ALIGNMENT,
    MAGIC,
    SCALAR_FORMATS,
    STRING,
    TENSOR_TYPES,
    VERSIONS,
)

KEYS_MAX: Final = 65_536
TENSORS_MAX: Final = 1 << 20
STRING_BYTES_MAX: Final = 1 << 26
ARRAY_ITEMS_MAX: Final = 1 << 24
ALIGNMENT_MAX: Final = 1 << 20
DIMENSIONS_MAX: Final = 4
TENSOR_NAME_BYTES_MAX: Final = 63  # ggml.h, GGML_MAX_NAME with its terminating zero.
ELEMENTS_MAX: Final = 1 << 62
# Longer arrays are counted, not kept; a vocabulary's text is needed to find duplicates.
KEPT_ITEMS_MAX: Final = 1024
VOCABULARY_KEY: Final = "tokenizer.ggml.tokens"
TOKEN_TYPES_KEY: Final = "tokenizer.ggml.token_type"  # noqa: S105 - tokens of text
_KEPT_WHOLE: Final = frozenset({TOKEN_TYPES_KEY})
_BYTE_TEXT: Final = re.compile(rb"<0x[0-9A-Fa-f]{2}>")

_SCALARS: Final = {kind: struct.Struct(layout) for kind, layout in SCALAR_FORMATS.items()}
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")


class Incomplete(SkepError):
    """The bytes end before the header does; a longer prefix may hold it."""


class _Cursor:
    """A position in the bytes; every read is checked against their end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.byte_tokens: frozenset[int] = frozenset()

    def unpack(self, layout: struct.Struct) -> Any:
        end = self.at + layout.size
        if end > len(self.data):
            raise Incomplete
        (value,) = layout.unpack_from(self.data, self.at)
        self.at = end
        return value

    def skip(self, count: int) -> None:
        if self.at + count > len(self.data):
            raise Incomplete
        self.at += count

    def raw_string(self, what: str, *, limit: int = STRING_BYTES_MAX) -> bytes:
        length = self.unpack(_U64)
        if length > limit:
            raise GgufMalformed(f"{what} is {length} bytes long, over the limit of {limit}", at=self.at)
        start = self.at
        self.skip(length)
        return self.data[start : self.at]

    def string(self, what: str, *, limit: int = STRING_BYTES_MAX) -> str:
        return self.raw_string(what, limit=limit).decode("utf-8", "surrogateescape")


def parse(data: bytes, *, file_bytes: int) -> Header:
    """Return the header at the start of `data`, a prefix of a file of `file_bytes`.

    Raises: NotAGguf, GgufMalformed, GgufTruncated (the file itself ends too early), Incomplete (give more bytes).
    """
    try:
        return _parse(_Cursor(data), file_bytes=file_bytes)
    except Incomplete:
        if len(data) < file_bytes:
            raise
        raise GgufTruncated(
            f"the file ends within its header, after {file_bytes} bytes", size=file_bytes
        ) from None


def _parse(cursor: _Cursor, *, file_bytes: int) -> Header:
    version = _read_version(cursor)
    tensor_count, key_count = cursor.unpack(_U64), cursor.unpack(_U64)
    if tensor_count > TENSORS_MAX or key_count > KEYS_MAX:
        raise GgufMalformed(
            f"the header promises {tensor_count} tensors and {key_count} keys; at most {TENSORS_MAX} and {KEYS_MAX} are believable",
            tensors=tensor_count,
            keys=key_count,
        )
    metadata = _read_metadata(cursor, key_count)
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= ALIGNMENT_MAX or alignment & (alignment - 1):
        raise GgufMalformed(f"general.alignment is {alignment!r}, not a power of two", alignment=alignment)
    tensors = _read_tensors(cursor, tensor_count)
    return Header(
        version=version,
        metadata=metadata,
        tensors=tensors,
        byte_tokens=cursor.byte_tokens,
        alignment=alignment,
        data_offset=_aligned(cursor.at, alignment),
        file_bytes=file_bytes,
    )


def _read_version(cursor: _Cursor) -> int:
    if cursor.data[: len(MAGIC)] != MAGIC[: len(cursor.data)]:
        raise NotAGguf(f"the file starts with {cursor.data[:4]!r}, not with {MAGIC!r}", magic=cursor.data[:4])
    cursor.skip(len(MAGIC))
    version: int = cursor.unpack(_U32)
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        hint = "it was written for big-endian machines" if swapped in VERSIONS else "skep reads 2 and 3"
        raise NotAGguf(f"the file is GGUF version {version}; {hint}", version=version)
    return version


def _read_metadata(cursor: _Cursor, count: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(count):
        key = cursor.string("a metadata key", limit=65_535)
        if not key:
            raise GgufMalformed("a metadata key is empty", at=cursor.at)
        if key in metadata:
            raise GgufMalformed(f"the key {key!r} stands twice", key=key)
        kind = cursor.unpack(_U32)
        metadata[key] = _read_array(cursor, key) if kind == ARRAY else _read_value(cursor, kind, key)
    return metadata


def _read_value(cursor: _Cursor, kind: int, key: str) -> Any:
    if kind == STRING:
        return cursor.string(key)
    layout = _SCALARS.get(kind)
    if layout is None:
        raise GgufMalformed(f"{key} has the unknown value type {kind}", key=key, kind=kind)
    return cursor.unpack(layout)


def _read_array(cursor: _Cursor, key: str) -> ArrayValue:
    kind, count = cursor.unpack(_U32), cursor.unpack(_U64)
    if count > ARRAY_ITEMS_MAX:
        raise GgufMalformed(
            f"{key} has {count} items, over the limit of {ARRAY_ITEMS_MAX}", key=key, count=count
        )
    if kind == STRING:
        return _read_strings(cursor, key, count)
    layout = _SCALARS.get(kind)
    if layout is None:
        raise GgufMalformed(
            f"{key} is an array of the type {kind}, which llama.cpp cannot read", key=key, kind=kind
        )
    start = cursor.at
    cursor.skip(count * layout.size)
    if count > KEPT_ITEMS_MAX and key not in _KEPT_WHOLE:
        return ArrayValue(kind=kind, count=count)
    items = struct.unpack_from(f"<{count}{layout.format[-1]}", cursor.data, start)
    return ArrayValue(kind=kind, count=count, items=items)


def _read_strings(cursor: _Cursor, key: str, count: int) -> ArrayValue:
    if key == VOCABULARY_KEY:
        cursor.byte_tokens = _read_vocabulary(cursor, key, count)
        return ArrayValue(kind=STRING, count=count)
    if count > KEPT_ITEMS_MAX:
        _walk_strings(cursor, key, count)
        return ArrayValue(kind=STRING, count=count)
    return ArrayValue(kind=STRING, count=count, items=tuple(cursor.string(key) for _ in range(count)))


def _read_vocabulary(cursor: _Cursor, key: str, count: int) -> frozenset[int]:
    """Return which tokens read as <0xHH>. The library aborts the process on a text that stands twice."""
    seen: dict[bytes, int] = {}
    for index in range(count):
        # As C sees it: up to the first zero, and a name of its own where nothing is left.
        text = cursor.raw_string(key).partition(b"\0")[0] or b"[EMPTY_%d]" % index
        if seen.setdefault(text, index) != index:
            raise GgufMalformed(f"the vocabulary has {text!r} twice, again at {index}", key=key, token=index)
    return frozenset(index for text, index in seen.items() if text[:1] == b"<" and _BYTE_TEXT.fullmatch(text))


def _walk_strings(cursor: _Cursor, key: str, count: int) -> None:
    """Step over strings: half a million merges in a tenth of a second, so the loop is spelled out."""
    data, at, end, read = cursor.data, cursor.at, len(cursor.data), _U64.unpack_from
    for _ in range(count):
        if at + 8 > end:
            raise Incomplete
        length = read(data, at)[0]
        if length > STRING_BYTES_MAX:
            raise GgufMalformed(f"{key} has a string of {length} bytes", key=key)
        at += 8 + length
    if at > end:
        raise Incomplete
    cursor.at = at


def _read_tensors(cursor: _Cursor, count: int) -> tuple[Tensor, ...]:
    tensors: dict[str, Tensor] = {}
    for _ in range(count):
        tensor = _read_tensor(cursor)
        if tensor.name in tensors:
            raise GgufMalformed(f"the tensor {tensor.name!r} stands twice", tensor=tensor.name)
        tensors[tensor.name] = tensor
    return tuple(tensors.values())


def _read_tensor(cursor: _Cursor) -> Tensor:
    name = cursor.string("a tensor's name", limit=TENSOR_NAME_BYTES_MAX)
    dimensions = cursor.unpack(_U32)
    if not 1 <= dimensions <= DIMENSIONS_MAX:
        raise GgufMalformed(f"the tensor {name!r} has {dimensions} dimensions, not 1 to 4", tensor=name)
    shape = tuple(cursor.unpack(_U64) for _ in range(dimensions))
    elements = 1
    for size in shape:
        elements *= size
        if not 0 < elements < ELEMENTS_MAX:
            raise GgufMalformed(
                f"the tensor {name!r} has the impossible shape {shape}", tensor=name, shape=shape
            )
    kind, offset = cursor.unpack(_U32), cursor.unpack(_U64)
    return Tensor(
        name=name, shape=shape, kind=kind, offset=offset, size_bytes=_size(name, shape, elements, kind)
    )


def _size(name: str, shape: tuple[int, ...], elements: int, kind: int) -> int | None:
    known = TENSOR_TYPES.get(kind)
    if known is None:
        return None
    label, block, size = known
    if shape[0] % block:
        raise GgufMalformed(
            f"the tensor {name!r} of type {label} has rows of {shape[0]}, not of whole blocks of {block}",
            tensor=name,
        )
    return elements // block * size


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
