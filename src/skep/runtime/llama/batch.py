"""The rows of one decode, in memory of ours that llama.cpp reads: filled in a few C-speed steps, never row by row."""

import ctypes
import struct
from collections.abc import Sequence
from ctypes import POINTER, c_int8, c_int32, sizeof
from functools import lru_cache
from typing import Final

from skep.runtime.backend import Row
from skep.runtime.llama import layout

_INT32: Final = sizeof(c_int32)


class RowBuffer:
    """Room for `rows_max` rows, each in one sequence. `wants` tells which rows of the last fill want logits."""

    def __init__(self, rows_max: int, *, wants_all: bool = False) -> None:
        """`wants_all` makes every row an output: pooling needs them all."""
        self.rows_max = rows_max
        self._wants_all = wants_all
        self.wants: tuple[bool, ...] = ()
        self._tokens = (c_int32 * rows_max)()
        self._positions = (c_int32 * rows_max)()
        self._sequences = (c_int32 * rows_max)()
        self._ones = (c_int32 * rows_max)(*([1] * rows_max))
        self._outputs = (c_int8 * rows_max)()
        base = ctypes.addressof(self._sequences)
        self._pointers = (ctypes.c_void_p * rows_max)(*range(base, base + rows_max * _INT32, _INT32))
        self.batch = layout.Batch(
            0,
            ctypes.cast(self._tokens, POINTER(c_int32)),
            None,
            ctypes.cast(self._positions, POINTER(c_int32)),
            ctypes.cast(self._ones, POINTER(c_int32)),
            ctypes.cast(self._pointers, POINTER(POINTER(c_int32))),
            ctypes.cast(self._outputs, POINTER(c_int8)),
        )

    def fill(self, rows: Sequence[Row], *, vocab_size: int, positions_max: int, sequences: int) -> str:
        """Put 1..rows_max rows in; return what is wrong with them, "" when nothing is (then `batch` is ready)."""
        count = len(rows)
        if not 0 < count <= self.rows_max:
            return f"{count} rows, but a batch takes 1 to {self.rows_max}"
        try:
            token, position, sequence, wants = zip(*rows, strict=True)
            if min(token) < 0 or max(token) >= vocab_size:
                wrong = f"a token outside the vocabulary of {vocab_size}"
            elif min(sequence) < 0 or max(sequence) >= sequences:
                wrong = f"a sequence outside 0..{sequences - 1}"
            elif min(position) < 0 or max(position) >= positions_max:
                wrong = f"a position outside 0..{positions_max - 1}"
            elif count > 1 and len(set(zip(sequence, position, strict=True))) != count:
                wrong = "two rows at one position of one sequence"
            else:
                wrong = ""
                self._pack(count, token, position, sequence, wants)
        except (TypeError, ValueError, struct.error) as error:
            wrong = f"a row is not (token, position, sequence, wants_logits): {error}"
        return wrong

    def _pack(
        self,
        count: int,
        token: tuple[int, ...],
        position: tuple[int, ...],
        sequence: tuple[int, ...],
        wants: tuple[bool, ...],
    ) -> None:
        if self._wants_all:
            wants = (True,) * count
        packed = _packer(count)
        packed.pack_into(self._tokens, 0, *token)
        packed.pack_into(self._positions, 0, *position)
        packed.pack_into(self._sequences, 0, *sequence)
        _output_packer(count).pack_into(self._outputs, 0, *wants)
        self.wants = wants
        self.batch.n_tokens = count


@lru_cache(maxsize=4096)
def _packer(count: int) -> struct.Struct:
    return struct.Struct(f"={count}i")


@lru_cache(maxsize=4096)
def _output_packer(count: int) -> struct.Struct:
    return struct.Struct(f"={count}?")
