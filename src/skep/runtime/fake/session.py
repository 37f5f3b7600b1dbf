"""A fake context: decodes by the script, and raises wherever the real library would end the process."""

import os
import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from skep.errors.runtime import (
    Closed,
    DecodeAborted,
    DecodeFailed,
    InvalidBatch,
    InvalidSampling,
    WrongThread,
)
from skep.runtime.backend import MemoryUse, Row, SessionOptions
from skep.runtime.fake.cache import Cache
from skep.runtime.fake.mind import Mind, Thought
from skep.runtime.fake.sampler import FakeSampler
from skep.runtime.fake.script import FakeScript, error_of
from skep.runtime.sampling import SamplingParams, check

EMBEDDING_SIZE = 16
BYTES_PER_CELL = 64


class FakeSession:
    """See `skep.runtime.backend.BackendSession`.

    The thread that decodes first owns the session: any other one gets WrongThread where llama.cpp would crash.
    """

    def __init__(
        self,
        script: FakeScript,
        mind: Mind,
        options: SessionOptions,
        next_decode: Callable[[], int],
        *,
        on_device: bool = False,
    ) -> None:
        self.options = options
        self._on_device = on_device
        self._script, self._mind, self._next_decode = script, mind, next_decode
        self._cache = Cache(options, script.cache_cells)
        self._thoughts: dict[int, Thought] = {}
        self._logits: dict[int, npt.NDArray[np.float32]] = {}
        self._interrupted = threading.Event()
        self._never = threading.Event()
        self._owner: int | None = None
        self._spoiled = False
        self._closed = False
        self.on_close: Callable[[], None] = lambda: None

    def decode(self, rows: Sequence[Row]) -> None:
        """Compute the rows after the scripted delay; the script's faults happen here."""
        self._check_usable()
        if not 1 <= len(rows) <= self.options.batch_rows_max:
            raise InvalidBatch(
                f"{len(rows)} rows are outside 1..{self.options.batch_rows_max}", rows=len(rows)
            )
        self._cache.check(rows, self._script.vocab)
        self._thoughts, self._logits = {}, {}
        self._act_out(self._next_decode())
        delay_s = self._script.token_delay_ms / 1e3 + len(rows) * self._script.row_delay_us / 1e6
        aborted = self._interrupted.wait(delay_s) if delay_s else self._interrupted.is_set()
        for index, row in enumerate(rows[: len(rows) // 2] if aborted else rows):
            thought = self._cache.append(row, self._mind, rows=len(rows), index=index)
            if row.wants_logits and not aborted:
                self._thoughts[index] = thought
        if aborted:
            raise DecodeAborted("the decode was interrupted; read the positions again")

    def make_sampler(self, params: SamplingParams, *, prompt: Sequence[int] = ()) -> FakeSampler:
        """Return a sampler of checked parameters."""
        self._check_usable()
        check(params, vocab_size=self._script.vocab)
        if prompt and not (min(prompt) >= 0 and max(prompt) < self._script.vocab):
            raise InvalidSampling(f"the prompt has tokens outside the vocabulary of {self._script.vocab}")
        return FakeSampler(params, prompt)

    def sample(self, sampler: FakeSampler, row: int) -> int:
        """Pick and accept; reads the logits as the caller may have changed them."""
        self._check_usable()
        if sampler.is_plain_greedy and row not in self._logits:
            return sampler.accept(self._mind.favourite(self._thought(row)))
        return sampler.choose(self.logits(row))

    def logits(self, row: int) -> npt.NDArray[np.float32]:
        """Return the row's logits, writable until the next decode."""
        self._check_usable()
        if row not in self._logits:
            self._logits[row] = self._mind.logits(self._thought(row))
        return self._logits[row]

    def embedding(self, sequence: int) -> npt.NDArray[np.float32]:
        """Return a unit vector that depends on the whole sequence."""
        self._check_usable()
        if not self.options.embeddings:
            raise InvalidBatch("the session was opened without embeddings")
        return self._mind.embedding(self._cache.last(sequence), EMBEDDING_SIZE)

    def sequence_remove(self, sequence: int, start: int, end: int) -> bool:
        """Drop positions; the fake always can."""
        self._check_usable()
        self._cache.remove(sequence, start, end)
        return True

    def sequence_copy(self, source: int, target: int, start: int, end: int) -> None:
        """Copy positions, whole sequences only when the cache is not unified."""
        self._check_usable()
        self._cache.copy(source, target, start, end)

    def sequence_position_max(self, sequence: int) -> int:
        """Return the last cached position."""
        self._check_usable()
        return self._cache.position_max(sequence)

    def interrupt(self) -> None:
        """End the running decode, and every later one, until `resume`."""
        self._interrupted.set()

    def resume(self) -> None:
        """Allow decoding again."""
        self._interrupted.clear()

    def memory(self) -> MemoryUse:
        """Return the bytes of the cells in use."""
        held = self._cache.cells_used * BYTES_PER_CELL
        return (
            MemoryUse(ram_bytes=0, device_bytes=held)
            if self._on_device
            else MemoryUse(ram_bytes=held, device_bytes=0)
        )

    def close(self) -> None:
        """Free the context; the model may close after it."""
        if not self._closed:
            self._closed = True
            self._never.set()
            self.on_close()

    def _check_usable(self) -> None:
        if self._closed:
            raise Closed("the session is closed")
        if self._spoiled:
            raise DecodeFailed("a decode failed before; close this session and open another")
        if self._owner is None:
            self._owner = threading.get_ident()
        elif self._owner != threading.get_ident():
            raise WrongThread("the session belongs to the thread that used it first")

    def _thought(self, row: int) -> Thought:
        try:
            return self._thoughts[row]
        except KeyError:
            raise InvalidBatch(f"row {row} of the last decode has no logits", row=row) from None

    def _act_out(self, decode: int) -> None:
        """Do what the script says for decode number `decode` of this model."""
        script = self._script
        if script.abort_after and decode >= script.abort_after:
            os.abort()
        if script.hang_after and decode == script.hang_after:
            while not self._interrupted.wait(0.01) and not self._never.is_set():
                pass
        first = script.fail_decode_after
        if first and first <= decode < first + script.fail_decode_times:
            error = error_of(script.fail_decode)
            self._spoiled = issubclass(error, DecodeFailed)
            raise error(f"the fake fails decode {decode}, as its script says", decode=decode)
