"""Decoding of messages between versions: unknown fields are ignored and counted, everything else is checked."""

from typing import Any, TypeVar

import msgspec

from skep.errors import InvalidInput

T = TypeVar("T")


class Decoded(tuple[T, int]):
    """A message, and how many fields of it this version does not know."""

    __slots__ = ()

    @property
    def message(self) -> T:
        """Return the message."""
        return self[0]

    @property
    def unknown_fields(self) -> int:
        """Return how many fields were ignored, at any depth."""
        return self[1]


def decode(data: bytes | bytearray | memoryview, kind: type[T]) -> Decoded[T]:
    """Decode JSON as `kind`, a Struct type. Raises: InvalidInput, with the path of the field that is wrong."""
    try:
        raw = msgspec.json.decode(data)
        message = msgspec.convert(raw, kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"not a valid {kind.__name__}: {error}", message_type=kind.__name__) from error
    return Decoded((message, _unknown(raw, msgspec.to_builtins(message))))


def _unknown(raw: Any, known: Any) -> int:
    """Count the keys of `raw` that did not survive the conversion."""
    if isinstance(raw, dict) and isinstance(known, dict):
        lost = len(raw.keys() - known.keys())
        return lost + sum(_unknown(value, known[key]) for key, value in raw.items() if key in known)
    if isinstance(raw, list) and isinstance(known, list | tuple) and len(raw) == len(known):
        return sum(_unknown(one, other) for one, other in zip(raw, known, strict=True))
    return 0
