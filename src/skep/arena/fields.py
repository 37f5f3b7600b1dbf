"""Typed access to the fields of a manifest; a wrong value is told with its path."""

from collections.abc import Mapping
from typing import Any, NoReturn

from skep.errors.arena import InvalidManifest

_NONE: Mapping[str, Any] = {}


class Fields:
    """A mapping within a manifest, and where it stands. An absent mapping reads as an empty one."""

    __slots__ = ("_data", "where")

    def __init__(self, data: Any, where: str) -> None:
        if data is None:
            data = _NONE
        elif not isinstance(data, dict):
            raise InvalidManifest(f"{where}: a mapping is needed, not {type(data).__name__}", where=where)
        self._data = data
        self.where = where

    def __contains__(self, key: str) -> bool:
        return self._data.get(key) is not None

    def __bool__(self) -> bool:
        return bool(self._data)

    def items(self) -> list[tuple[str, Any]]:
        """Return the keys with their raw values."""
        return list(self._data.items())

    def fail(self, key: str, needed: str) -> NoReturn:
        """Raise InvalidManifest for a field."""
        where = f"{self.where}.{key}"
        raise InvalidManifest(f"{where}: {needed} is needed, not {self._data.get(key)!r}"[:300], where=where)

    def raw(self, key: str) -> Any:
        """Return the value as it stands, or None."""
        return self._data.get(key)

    def child(self, key: str) -> "Fields":
        """Return the mapping at `key`."""
        return Fields(self._data.get(key), f"{self.where}.{key}")

    def children(self, key: str) -> list["Fields"]:
        """Return the mappings in the list at `key`."""
        value = self._data.get(key)
        if value is None:
            return []
        if not isinstance(value, list | tuple):
            self.fail(key, "a list")
        return [Fields(item, f"{self.where}.{key}[{at}]") for at, item in enumerate(value)]

    def text(self, key: str, default: str = "") -> str:
        """Return the text at `key`."""
        value = self._data.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            self.fail(key, "text")
        return value

    def texts(self, key: str) -> dict[str, str]:
        """Return the mapping of text to text at `key`."""
        value = self._data.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(
            isinstance(name, str) and isinstance(item, str) for name, item in value.items()
        ):
            self.fail(key, "a mapping of text to text")
        return dict(value)

    def strings(self, key: str) -> list[str]:
        """Return the list of text at `key`."""
        value = self._data.get(key)
        if value is None:
            return []
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            self.fail(key, "a list of text")
        return list(value)

    def integer(self, key: str, default: int, *, lowest: int = 0, highest: int = 2**63 - 1) -> int:
        """Return the integer at `key`, inside its range."""
        value = self._data.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            self.fail(key, f"an integer from {lowest} to {highest}")
        return value

    def number(self, key: str) -> float | None:
        """Return the number of 0 or more at `key`, or None."""
        value = self._data.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
            self.fail(key, "a number that is 0 or more")
        return float(value)

    def boolean(self, key: str, *, default: bool) -> bool:
        """Return the truth value at `key`."""
        value = self._data.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.fail(key, "true or false")
        return value

    def count_or_percent(self, key: str, default: Any) -> Any:
        """Return a count, or a percentage as text ("25%")."""
        value = self._data.get(key)
        if value is None:
            return default
        if isinstance(value, str) and value.endswith("%") and value[:-1].isascii() and value[:-1].isdigit():
            return value
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self.fail(key, 'a count, or a percentage as "25%"')
        return value
