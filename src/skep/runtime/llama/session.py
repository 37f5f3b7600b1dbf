"""One decoding context: rows in, logits and tokens out. What would abort the process is refused before it reaches C."""

import ctypes
import threading
from collections.abc import Sequence
from math import isnan
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from skep.errors import InvalidInput, SkepError
from skep.errors.runtime import DecodeAborted, DecodeFailed, InvalidBatch, NoCacheSlot
from skep.runtime.backend import MemoryUse, ModelInfo, Row, Sampler, SessionOptions
from skep.runtime.gguf import Header
from skep.runtime.llama.batch import RowBuffer
from skep.runtime.llama.context import CacheShape, attach_adapters, open_context
from skep.runtime.llama.library import Library
from skep.runtime.llama.lifecycle import Native, NativeState, Owner
from skep.runtime.llama.loading import LoadedModel
from skep.runtime.llama.log import compute_failure_kind
from skep.runtime.llama.sampler import LlamaSampler
from skep.runtime.sampling import SamplingParams

_OK, _NO_SLOT, _ABORTED, _INVALID = 0, 1, 2, -1  # llama.h, llama_decode
_VIEWS_MAX: Final = 4096

# bool(*)(void*), true while its bytes are not empty: an abort callback with no Python and no GIL.
_STRLEN: Final = ctypes.cast(ctypes.CDLL(None).strlen, ctypes.c_void_p)


class SessionModel(Protocol):
    """What a session needs of the model that opened it, which stays loaded until the session is closed."""

    header: Header
    info: ModelInfo
    loaded: LoadedModel

    def session_closed(self) -> None:
        """Take note that a session let go of the weights."""
        ...


class LlamaSession(Native):
    """Implements `BackendSession`. Belongs to the thread that uses it first; `interrupt` and `resume` to all."""

    _noun = "session"

    def __init__(self, library: Library, model: SessionModel, options: SessionOptions) -> None:
        """Raises: InsufficientMemory, DeviceOutOfMemory, InvalidInput."""
        self._library = library
        self._api: Any = library.api
        self._model = model
        self.options = options
        if model.header.only_embeds and not options.embeddings:
            raise InvalidInput(f"{model.info.name} only embeds; open the session with embeddings=True")
        opened = open_context(library, model.loaded.handle, options, _cache_shape(model))
        self._context = opened.handle
        self._memory = opened.memory
        try:
            self._prepare()
        except BaseException:
            self._api.llama_free(self._context)
            raise
        super().__init__()

    def _prepare(self) -> None:
        """Make everything that calls need; nothing of it outlives the context."""
        model, options = self._model, self.options
        attach_adapters(self._library, self._context, model.loaded.adapters)
        self._vocab_size = model.info.vocab_size
        # Past its learned positions a model reads beyond a table, and the library aborts.
        self._positions_max = min(options.context, model.header.positions_max or options.context)
        self._embedding_size = model.info.embedding_size
        self._cache: int | None = self._api.llama_get_memory(self._context)
        self._rows = RowBuffer(options.batch_rows_max, wants_all=options.embeddings)
        self._has_devices = model.loaded.has_devices
        self._owner = Owner()
        self._is_decoding = False
        self._views: dict[int, npt.NDArray[np.float32]] = {}
        self._stop_flag = ctypes.create_string_buffer(2)
        self._api.llama_set_abort_callback(self._context, _STRLEN, ctypes.addressof(self._stop_flag))
        self._decode = self._api.llama_decode
        self._logits_ith = self._api.llama_get_logits_ith

    def decode(self, rows: Sequence[Row]) -> None:
        """Compute 1..batch_rows_max rows in one pass.

        Raises: InvalidBatch and NoCacheSlot (context unchanged), DecodeAborted (positions may have moved: read
        them), DecodeFailed, DeviceOutOfMemory and DeviceError (spoiled), WrongThread, Closed.
        """
        self._check()
        rows_buffer = self._rows
        rows_buffer.wants = ()
        wrong = rows_buffer.fill(
            rows,
            vocab_size=self._vocab_size,
            positions_max=self._positions_max,
            sequences=self.options.sequences,
        )
        if wrong:
            raise InvalidBatch(f"the batch cannot be decoded: {wrong}")
        self._is_decoding = True
        try:
            code = self._decode(self._context, rows_buffer.batch)
            if self._has_devices:
                self._api.llama_synchronize(self._context)
        finally:
            self._is_decoding = False
        if code != _OK:
            rows_buffer.wants = ()
            raise self._decode_failure(code)

    def make_sampler(self, params: SamplingParams, *, prompt: Sequence[int] = ()) -> LlamaSampler:
        """Return a sampler; `prompt` primes the repetition penalties. Raises: InvalidSampling, Closed."""
        self._check()
        return LlamaSampler(self._library, params, vocab_size=self._vocab_size, prompt=prompt)

    def sample(self, sampler: Sampler, row: int) -> int:
        """Pick and accept the next token from row index `row` of the last decode.

        Raises: InvalidBatch (the row has no logits), DecodeFailed (they are not numbers), Closed.
        """
        view = self._row_logits(row)
        if type(sampler) is not LlamaSampler or not sampler.is_open:
            raise _unusable(sampler)
        if sampler.handle is None:
            token = int(view.argmax())
        else:
            token = self._api.llama_sampler_sample(sampler.handle, self._context, row)
        if not 0 <= token < self._vocab_size or isnan(view.item(token)):
            raise self._spoil("the logits are not numbers: the weights are damaged", DecodeFailed)
        return token

    def logits(self, row: int) -> npt.NDArray[np.float32]:
        """Return a writable view (vocab_size,) of the row's logits, valid until the next decode.

        Raises: InvalidBatch (the row has no logits), Closed.
        """
        return self._row_logits(row)

    def embedding(self, sequence: int) -> npt.NDArray[np.float32]:
        """Return a copy (embedding_size,) of the pooled embedding of a sequence of the last decode.

        Raises: InvalidBatch (no embeddings in this session, or the sequence was not decoded), Closed.
        """
        self._check()
        self._check_sequence(sequence)
        if not self.options.embeddings:
            raise InvalidBatch("this session makes no embeddings; open it with embeddings=True")
        address = self._api.llama_get_embeddings_seq(self._context, sequence) if self._rows.wants else None
        if not address:
            raise InvalidBatch(
                f"sequence {sequence} has no embedding from the last decode", sequence=sequence
            )
        floats = (ctypes.c_float * self._embedding_size).from_address(address)
        return np.ctypeslib.as_array(floats).copy()

    def sequence_remove(self, sequence: int, start: int, end: int) -> bool:
        """Drop cache positions [start, end); −1 as `end` means to the last. False when the cache cannot.

        Raises: InvalidBatch (no such sequence or range), Closed.
        """
        self._check()
        self._check_sequence(sequence)
        self._check_range(start, end)
        return bool(self._api.llama_memory_seq_rm(self._cache, sequence, start, end))

    def sequence_copy(self, source: int, target: int, start: int, end: int) -> None:
        """Share cache positions [start, end) of `source` with `target`.

        Raises: InvalidBatch (no such sequence or range, or partial with a cache that is not unified), Closed.
        """
        self._check()
        self._check_sequence(source)
        self._check_sequence(target)
        self._check_range(start, end)
        if source == target:
            return
        if not self.options.unified_cache:
            # The library aborts on a partial copy between two streams.
            if start > 0 or not (end < 0 or end > self._api.llama_memory_seq_pos_max(self._cache, source)):
                raise InvalidBatch(
                    "a cache that is not unified copies whole sequences only", start=start, end=end
                )
            end = -1
        self._api.llama_memory_seq_cp(self._cache, source, target, start, end)

    def sequence_position_max(self, sequence: int) -> int:
        """Return the last cached position, −1 when empty. Raises: InvalidBatch (no such sequence), Closed."""
        self._check()
        self._check_sequence(sequence)
        return int(self._api.llama_memory_seq_pos_max(self._cache, sequence))

    def interrupt(self) -> None:
        """Make the running decode raise DecodeAborted soon. Safe from any thread; cleared by `resume`."""
        self._stop_flag[0] = b"\x01"

    def resume(self) -> None:
        """Allow decoding again after an interrupt."""
        self._stop_flag[0] = b"\x00"

    def memory(self) -> MemoryUse:
        """Return what this context holds, as the library told when it opened it. Raises: Closed."""
        if not self.is_open:
            raise self._refusal()
        return self._memory

    def _check(self) -> None:
        if self._state is not NativeState.OPEN:
            raise self._refusal()
        owner = self._owner
        if owner.ident != threading.get_ident():
            if owner.ident is not None:
                raise owner.refusal(self._noun)
            owner.ident = threading.get_ident()

    def _check_sequence(self, sequence: int) -> None:
        if not 0 <= sequence < self.options.sequences:
            raise InvalidBatch(
                f"sequence {sequence} is outside 0..{self.options.sequences - 1}", sequence=sequence
            )

    def _check_range(self, start: int, end: int) -> None:
        context = self.options.context
        if not 0 <= start <= context or not (end == -1 or start <= end <= context):
            raise InvalidBatch(
                f"positions [{start}, {end}) are not within a context of {context}", start=start, end=end
            )

    def _row_logits(self, row: int) -> npt.NDArray[np.float32]:
        self._check()
        wants = self._rows.wants
        # The library aborts on a row without logits, and takes a negative one from the end.
        if not 0 <= row < len(wants) or not wants[row]:
            raise InvalidBatch(f"row {row} of the last decode has no logits", row=row)
        address = self._logits_ith(self._context, row)
        view = self._views.get(address)
        if view is None:
            view = self._new_view(address)
        return view

    def _new_view(self, address: int | None) -> npt.NDArray[np.float32]:
        if not address:
            raise self._spoil("the library has no logits for a row that wanted them", DecodeFailed)
        if len(self._views) >= _VIEWS_MAX:
            self._views.clear()
        floats = (ctypes.c_float * self._vocab_size).from_address(address)
        view: npt.NDArray[np.float32] = np.ctypeslib.as_array(floats)
        self._views[address] = view
        return view

    def _decode_failure(self, code: int) -> SkepError:
        match code:
            case 1:
                return NoCacheSlot("the cache has no room for this batch; a smaller one may fit", code=code)
            case 2:
                return DecodeAborted("the decode was interrupted; read the positions again", code=code)
            case -1:
                text = self._library.log.complaint(max(0, self._library.log.mark() - 4))
                return InvalidBatch(f"the library refused the batch: {text}", code=code)
            case _:
                text = self._library.log.complaint(max(0, self._library.log.mark() - 8))
                return self._spoil(text or f"code {code}", compute_failure_kind(text) or DecodeFailed)

    def _spoil(self, why: str, kind: type[SkepError]) -> SkepError:
        self._state = NativeState.SPOILED
        self._why = why
        return kind(f"the decode failed ({why}); close the session", why=why)

    def _before_close(self) -> None:
        if self._is_decoding:
            raise self._owner.refusal(self._noun)

    def _release(self) -> None:
        self._views.clear()
        self._api.llama_free(self._context)
        self._model.session_closed()


def _unusable(sampler: object) -> SkepError:
    if isinstance(sampler, LlamaSampler):
        return sampler.refusal()
    return InvalidBatch(f"{type(sampler).__name__} is not a sampler of this session")


def _cache_shape(model: SessionModel) -> CacheShape:
    return CacheShape(
        terms=model.header.memory_terms(),
        has_pooling=model.header.has_pooling,
        has_devices=model.loaded.has_devices,
    )
