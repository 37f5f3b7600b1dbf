"""The fake's KV cache: which thought stands at which position of which sequence, and how many cells that takes.

In a unified cache a copied position shares its cell; otherwise every sequence owns its own.
"""

from collections import Counter
from collections.abc import Sequence

from skep.errors.runtime import InvalidBatch, NoCacheSlot
from skep.runtime.backend import Row, SessionOptions
from skep.runtime.fake.mind import BLANK, Mind, Thought


class Cell:
    """One cached position. Identity matters: a unified cache counts a shared cell once."""

    __slots__ = ("thought",)

    def __init__(self, thought: Thought) -> None:
        self.thought = thought


class Cache:
    """All sequences of one session."""

    def __init__(self, options: SessionOptions, cells_max: int) -> None:
        self._options = options
        self._cells_max = cells_max or options.sequences * options.context
        self._sequences: list[dict[int, Cell]] = [{} for _ in range(options.sequences)]
        self._owners: Counter[int] = Counter()  # id(cell) → how many sequences hold it

    @property
    def cells_used(self) -> int:
        """How many cells hold a position."""
        return len(self._owners)

    def check(self, rows: Sequence[Row], vocab_size: int) -> None:
        """Raises: InvalidBatch (a bad row), NoCacheSlot (too few free cells); nothing is changed."""
        ends: dict[int, int] = {}
        for row in rows:
            if not 0 <= row.token < vocab_size:
                raise InvalidBatch(f"token {row.token} is outside the vocabulary of {vocab_size}", row=row)
            if not 0 <= row.sequence < len(self._sequences):
                raise InvalidBatch(
                    f"sequence {row.sequence} is outside 0..{len(self._sequences) - 1}", row=row
                )
            if not 0 <= row.position < self._options.context:
                raise InvalidBatch(
                    f"position {row.position} is outside a context of {self._options.context}", row=row
                )
            end = ends.get(row.sequence, self.position_max(row.sequence))
            if row.position != end + 1:
                raise InvalidBatch(f"position {row.position} does not follow {end}", row=row)
            ends[row.sequence] = row.position
        if self.cells_used + len(rows) > self._cells_max:
            raise NoCacheSlot(
                f"{len(rows)} rows do not fit into {self._cells_max - self.cells_used} free cells"
            )

    def append(self, row: Row, mind: Mind, *, rows: int, index: int) -> Thought:
        """Compute one checked row and keep it."""
        sequence = self._sequences[row.sequence]
        before = sequence[row.position - 1].thought if row.position - 1 in sequence else BLANK
        cell = Cell(mind.after(before, row.token, rows=rows, index=index))
        sequence[row.position] = cell
        self._owners[id(cell)] += 1
        return cell.thought

    def remove(self, sequence: int, start: int, end: int) -> None:
        """Drop positions [start, end); −1 as `end` means to the last. Raises: InvalidBatch."""
        cells = self._sequences[self._known(sequence)]
        stop = self._checked_end(start, end)
        for position in [position for position in cells if start <= position < stop]:
            self._release(cells.pop(position))

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        """Raises: InvalidBatch when the copy is partial and the cache is not unified."""
        cells, last = self._sequences[self._known(source)], self.position_max(source)
        stop = self._checked_end(start, end)
        if source == self._known(target):
            return
        if not self._options.unified_cache:
            if start > 0 or stop <= last:
                raise InvalidBatch(
                    "a partial sequence_copy needs a unified cache", source=source, target=target
                )
            self.remove(target, 0, -1)
        for position, cell in cells.items():
            if start <= position < stop:
                self._hold(target, position, cell)
        self._sequences[target] = dict(sorted(self._sequences[target].items()))

    def position_max(self, sequence: int) -> int:
        """Return the last cached position, −1 when empty. Raises: InvalidBatch."""
        # Positions are kept in order: rows only append, and a copy sorts.
        cells = self._sequences[self._known(sequence)]
        return next(reversed(cells)) if cells else -1

    def last(self, sequence: int) -> Thought:
        """Return the thought at the end of a sequence. Raises: InvalidBatch when it is empty."""
        position = self.position_max(sequence)
        if position < 0:
            raise InvalidBatch(f"sequence {sequence} is empty", sequence=sequence)
        return self._sequences[sequence][position].thought

    def _known(self, sequence: int) -> int:
        if not 0 <= sequence < len(self._sequences):
            raise InvalidBatch(f"sequence {sequence} is outside 0..{len(self._sequences) - 1}")
        return sequence

    def _checked_end(self, start: int, end: int) -> int:
        context = self._options.context
        if not 0 <= start <= context or not (end == -1 or start <= end <= context):
            raise InvalidBatch(f"positions [{start}, {end}) are not within a context of {context}")
        return context if end < 0 else end

    def _hold(self, target: int, position: int, cell: Cell) -> None:
        cells = self._sequences[target]
        if position in cells:
            self._release(cells.pop(position))
        kept = cell if self._options.unified_cache else Cell(cell.thought)
        cells[position] = kept
        self._owners[id(kept)] += 1

    def _release(self, cell: Cell) -> None:
        self._owners[id(cell)] -= 1
        if not self._owners[id(cell)]:
            del self._owners[id(cell)]
