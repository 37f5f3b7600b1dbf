"""The fake backend and its model: loading with scripted progress, memory and faults."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path

from skep.errors import InvalidInput, SkepError
from skep.errors.runtime import Closed, DeviceOutOfMemory, InsufficientMemory, ModelInUse, ModelNotFound
from skep.runtime.backend import LoadOptions, MemoryUse, ModelInfo, SessionOptions
from skep.runtime.fake.mind import Mind
from skep.runtime.fake.script import FakeScript, check, error_of, script_for
from skep.runtime.fake.session import BYTES_PER_CELL, EMBEDDING_SIZE, FakeSession
from skep.runtime.fake.vocabulary import BOS, CHAT_TEMPLATE, END_TOKENS, EOS, vocabulary

PROGRESS_STEPS = 10
CELLS_MAX = 2**24


class FakeModel:
    """See `skep.runtime.backend.BackendModel`. Tokenising is safe from any thread."""

    def __init__(self, script: FakeScript, options: LoadOptions) -> None:
        self.script = script
        self._options = options
        self._vocabulary = vocabulary(script.vocab)
        self._mind = Mind(script)
        self._decodes = itertools.count(1)
        self._sessions = 0
        self._closed = False
        self.info = ModelInfo(
            name=script.name,
            architecture="fake",
            quantization="none",
            parameters=0,
            size_bytes=script.memory_bytes,
            vocab_size=script.vocab,
            context_train=script.context_train,
            embedding_size=EMBEDDING_SIZE,
            layers=script.layers,
            tokenizer="bytes",
            bos_token=BOS,
            eos_token=EOS,
            end_tokens=END_TOKENS,
            add_bos=False,
            chat_template=None if script.only_embeds else CHAT_TEMPLATE,
            only_embeds=script.only_embeds,
        )

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:  # noqa: ARG002 - `add_bos` is false
        """Return one id a byte, or a word where the vocabulary has it."""
        self._check_open()
        try:
            return self._vocabulary.tokenize(text, parse_special=parse_special)
        except UnicodeEncodeError as error:
            raise InvalidInput(f"the text is not valid Unicode at index {error.start}") from error

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes of one token."""
        self._check_open()
        return self._vocabulary.piece(token, special=special)

    def open_session(self, options: SessionOptions) -> FakeSession:
        """Return a new context."""
        self._check_open()
        if not 1 <= options.sequences * options.context <= CELLS_MAX or options.batch_rows_max < 1:
            raise InvalidInput(
                f"{options.sequences} sequences of {options.context} tokens are outside 1..{CELLS_MAX} cells"
            )
        if self.script.only_embeds and not options.embeddings:
            raise InvalidInput(f"{self.info.name} only embeds; open the session with embeddings=True")
        on_device = bool(self._options.devices) and options.offload_cache
        if on_device:
            needed = self.memory().device_bytes + options.sequences * options.context * BYTES_PER_CELL
            _check_device(self.script, needed, DeviceOutOfMemory)
        session = FakeSession(self.script, self._mind, options, self._decodes.__next__, on_device=on_device)
        self._sessions += 1
        session.on_close = self._session_closed
        return session

    def memory(self) -> MemoryUse:
        """Return the scripted figure, each layer's part where the layer is."""
        return _weights(self.script, self._options)

    def close(self) -> None:
        """Free the model."""
        if self._sessions:
            raise ModelInUse(f"{self._sessions} sessions are open; close them first", sessions=self._sessions)
        self._closed = True

    def _session_closed(self) -> None:
        self._sessions -= 1

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the model is closed")


def _weights(script: FakeScript, options: LoadOptions) -> MemoryUse:
    layers = min(script.layers, options.gpu_layers) if options.gpu_layers >= 0 else script.layers
    device_bytes = script.memory_bytes * layers // script.layers if options.devices else 0
    return MemoryUse(ram_bytes=script.memory_bytes - device_bytes, device_bytes=device_bytes)


def _check_device(script: FakeScript, needed_bytes: int, kind: type[SkepError]) -> None:
    have_bytes = script.device_memory_bytes
    if have_bytes and needed_bytes > have_bytes:
        raise kind(
            f"the fake device has {have_bytes} bytes, and {needed_bytes} are needed",
            needed_bytes=needed_bytes,
        )


class FakeBackend:
    """Loads `fake:NAME?…` references, and any file that exists, without reading it.

    A script given here is used for every load, whatever the path says.
    """

    name = "fake"

    def __init__(self, script: FakeScript | None = None) -> None:
        self._script = script and check(script)

    def load(
        self, path: Path, options: LoadOptions, *, on_progress: Callable[[float], None] | None = None
    ) -> FakeModel:
        """Return the scripted model after the scripted delay. Raises: ModelNotFound, InvalidInput, what the script says."""
        script = self._script or script_for(path)
        if script is None:
            raise ModelNotFound(f"no model file at {path}", path=str(path))
        for step in range(PROGRESS_STEPS + 1):
            if on_progress is not None:
                on_progress(step / PROGRESS_STEPS)
            if script.fail_load and step == PROGRESS_STEPS // 2:
                raise error_of(script.fail_load)(f"the fake fails to load {path}, as its script says")
            if step < PROGRESS_STEPS and script.load_delay_ms:
                time.sleep(script.load_delay_ms / PROGRESS_STEPS / 1e3)
        _check_device(script, _weights(script, options).device_bytes, InsufficientMemory)
        return FakeModel(script, options)
