"""Tables (CSV) and JSON lines of other projects, row by row; what is wrong is told with its line."""

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from skep.errors.arena import TraceInvalid, TraceNotFound, TraceUnreadable


class Row:
    """One row and where it stands; cells are taken by column with a type."""

    def __init__(self, cells: Mapping[str, Any], where: str) -> None:
        self._cells, self.where = cells, where

    def text(self, column: str, default: str = "") -> str:
        """Return a cell as text."""
        value = self._cells.get(column)
        return default if value is None else str(value).strip()

    def number(self, column: str, default: float | None = None) -> float:
        """Return a cell as a number; an empty one is the default, if there is one. Raises: TraceInvalid."""
        text = self.text(column)
        if not text:
            if default is None:
                raise TraceInvalid(f"{self.where}: {column} is empty", where=self.where)
            return default
        try:
            value = float(text)
        except ValueError:
            raise TraceInvalid(f"{self.where}: {column}: {text!r} is no number", where=self.where) from None
        if not math.isfinite(value):
            raise TraceInvalid(f"{self.where}: {column}: {text!r}", where=self.where)
        return value

    def whole(self, column: str, default: int | None = None) -> int:
        """Return a cell as a whole number that is not negative. Raises: TraceInvalid."""
        value = self.number(column, default)
        if value < 0 or value != int(value):
            raise TraceInvalid(f"{self.where}: {column}: {value} is no count", where=self.where)
        return int(value)

    def numbers(self, column: str) -> tuple[int, ...]:
        """Return a cell that is a list of whole numbers. Raises: TraceInvalid."""
        value = self._cells.get(column) or []
        if not isinstance(value, list) or not all(isinstance(one, int) for one in value):
            raise TraceInvalid(f"{self.where}: {column}: a list of whole numbers", where=self.where)
        return tuple(value)


def csv_rows(path: Path, needed: tuple[str, ...]) -> Iterator[Row]:
    """Yield the rows of a CSV file with a heading. Raises: TraceNotFound, TraceInvalid (columns missing, too few cells)."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [column for column in needed if column not in (reader.fieldnames or ())]
            if missing:
                raise TraceInvalid(f"{path}: no column {', '.join(missing)}", where=str(path))
            for cells in reader:
                where = f"{path}:{reader.line_num}"
                if None in cells or None in cells.values():
                    raise TraceInvalid(f"{where}: not as many cells as columns", where=where)
                yield Row(cells, where)
    except FileNotFoundError:
        raise TraceNotFound(f"no file at {path}", path=str(path)) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceUnreadable(f"{path}: {error}", where=str(path)) from error


def json_rows(path: Path, needed: tuple[str, ...]) -> Iterator[Row]:
    """Yield the objects of a JSON lines file. Raises: TraceNotFound, TraceInvalid."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                where = f"{path}:{number}"
                if not line.strip():
                    continue
                try:
                    cells = msgspec.json.decode(line, type=dict[str, Any])
                except msgspec.DecodeError as error:
                    raise TraceInvalid(f"{where}: {error}", where=where) from error
                missing = [column for column in needed if column not in cells]
                if missing:
                    raise TraceInvalid(f"{where}: no {', '.join(missing)}", where=where)
                yield Row(cells, where)
    except FileNotFoundError:
        raise TraceNotFound(f"no file at {path}", path=str(path)) from None
    except OSError as error:
        raise TraceUnreadable(f"{path}: {error.strerror}", where=str(path)) from error
