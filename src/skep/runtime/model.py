"""The library: a model, sessions of it, and text that streams out of them.

with Model.load("model.gguf", devices="cpu") as model, model.session(slots=4, context=4096) as session:
    for event in session.generate("Once", max_tokens=32, seed=7):
        ...
"""

import itertools
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypedDict, Unpack

import msgspec
import numpy as np
import numpy.typing as npt

from skep.errors import InvalidInput
from skep.errors.runtime import Closed, ModelInUse
from skep.runtime.backend import Backend, BackendModel, LoadOptions, MemoryUse, ModelInfo
from skep.runtime.engine import Engine
from skep.runtime.job import Job
from skep.runtime.open import open_backend
from skep.runtime.options import EngineOptions
from skep.runtime.request import (
    Constraint,
    Embedded,
    EmbeddingRequest,
    EngineStats,
    Failed,
    GenerationRequest,
    Token,
)
from skep.runtime.sampling import SamplingParams
from skep.runtime.templates import ChatTemplate, Message, encode_prompt, template_of
from skep.runtime.text import detokenize


class GenerateOptions(TypedDict, total=False):
    """What a generation may be told; every key has the default of the structure that it belongs to.

    The sampling parameters are `SamplingParams`', the rest `GenerationRequest`'s.
    """

    max_tokens: int
    stop: Sequence[str]
    logprobs: int | None
    constraint: Constraint | None
    deadline_s: float
    ignore_end: bool
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    penalty_last_tokens: int
    logit_bias: dict[int, float]
    seed: int | None


MAX_TOKENS_DEFAULT = 256
_SAMPLING_FIELDS = frozenset(SamplingParams.__struct_fields__)


class Model:
    """A loaded model. Close its sessions first, or leave both by `with`."""

    def __init__(self, backend_model: BackendModel) -> None:
        self.backend_model = backend_model
        self._template: ChatTemplate | None = None
        self._is_closed = False

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        devices: str = "cpu",
        backend: str | Backend = "llama",
        options: LoadOptions | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> Self:
        """Load a GGUF file onto `devices`: "cpu", or device indices such as "0" or "0,1".

        Raises: ModelNotFound, ModelLoadFailed and its kinds, InsufficientMemory, DeviceMissing, LibraryUnavailable,
        InvalidInput.
        """
        opened = open_backend(backend) if isinstance(backend, str) else backend
        loading = msgspec.structs.replace(options or LoadOptions(), devices=parse_devices(devices))
        return cls(opened.load(Path(path), loading, on_progress=on_progress))

    @property
    def info(self) -> ModelInfo:
        """What the model says of itself."""
        return self.backend_model.info

    def memory(self) -> MemoryUse:
        """Return what the weights hold."""
        return self.backend_model.memory()

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Return token ids. Raises: InvalidInput, Closed."""
        return self.backend_model.tokenize(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, tokens: Iterable[int], *, special: bool = False) -> str:
        """Return the text of tokens. Raises: InvalidToken, Closed."""
        return detokenize(self.backend_model, tokens, special=special)

    @property
    def template(self) -> ChatTemplate:
        """The model's chat template, or the default one. Raises: InvalidTemplate."""
        if self._template is None:
            self._template = template_of(self.backend_model)
        return self._template

    def session(
        self, *, slots: int = 4, context: int = 4096, options: EngineOptions | None = None, threads: int = 0
    ) -> "Session":
        """Return a running session of `slots` sequences of up to `context` tokens.

        Raises: InsufficientMemory, DeviceOutOfMemory, InvalidInput, Closed.
        """
        if self._is_closed:
            raise Closed("the model is closed")
        options = options or EngineOptions()
        shape = msgspec.structs.replace(options.session, sequences=slots, context=context)
        if threads:
            shape = msgspec.structs.replace(shape, threads=threads, threads_batch=threads)
        if shape.batch_rows_max < slots:
            shape = msgspec.structs.replace(shape, batch_rows_max=slots)
        return Session(
            self, Engine(self.backend_model, msgspec.structs.replace(options, session=shape)).start()
        )

    def close(self) -> None:
        """Free the weights; closing twice is fine. Raises: ModelInUse while a session is open."""
        if not self._is_closed:
            self.backend_model.close()
            self._is_closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_is_closed", True):
            warnings.warn("a model was never closed", ResourceWarning, source=self, stacklevel=2)
            try:
                self.close()
            except ModelInUse:
                return  # Its session warns, and closes it.


class Session:
    """Slots of one model, decoding beside the caller. Safe to use from several threads and event loops."""

    def __init__(self, model: Model, engine: Engine) -> None:
        self.model = model
        self.engine = engine
        self._ids = itertools.count()
        self._is_closed = False

    def generate(self, prompt: str | Sequence[int], **options: Unpack[GenerateOptions]) -> Job:
        """Continue a text or token ids: iterate the result with `for` or `async for`.

        Leaving a `for` loop early cancels the job, and so does leaving the job as a context manager.
        Raises: as `Engine.submit`.
        """
        tokens = self.model.tokenize(prompt) if isinstance(prompt, str) else prompt
        return self.engine.submit(self._request(tokens, options))

    def chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_variables: Mapping[str, Any] | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Job:
        """Answer a conversation, by the model's chat template. Raises: InvalidTemplate, and as `Engine.submit`."""
        text = self.model.template.render(messages, tools=tools, variables=template_variables)
        return self.engine.submit(self._request(encode_prompt(self.model.backend_model, text), options))

    def text(self, prompt: str | Sequence[int], **options: Unpack[GenerateOptions]) -> str:
        """Return the whole continuation, waiting for it. Raises: as `generate`, and what ended the job."""
        return collect(self.generate(prompt, **options))

    def embed(self, text: str | Sequence[int], *, deadline_s: float = 300.0) -> npt.NDArray[np.float32]:
        """Return a vector of unit length, waiting for it. Raises: as `Engine.embed`, and what ended the job."""
        tokens = self.model.tokenize(text) if isinstance(text, str) else text
        request = EmbeddingRequest(job_id=self._job_id(), prompt=tuple(tokens), deadline_s=deadline_s)
        event = next(iter(self.engine.embed(request)))
        if isinstance(event, Failed):
            raise event.error
        assert isinstance(event, Embedded)
        return event.vector

    def stats(self) -> EngineStats:
        """Return a moment of the engine."""
        return self.engine.stats()

    def close(self) -> None:
        """End every job and free the slots; closing twice is fine."""
        self._is_closed = True
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_is_closed", True):
            warnings.warn("a session was never closed", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def _request(self, tokens: Sequence[int], options: GenerateOptions) -> GenerationRequest:
        given: dict[str, Any] = {"max_tokens": MAX_TOKENS_DEFAULT, **options}
        sampling = {field: given.pop(field) for field in _SAMPLING_FIELDS & given.keys()}
        stop = given.pop("stop", ())
        return GenerationRequest(
            job_id=self._job_id(),
            prompt=tuple(tokens),
            sampling=SamplingParams(**sampling),
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            **given,
        )

    def _job_id(self) -> str:
        return f"job-{next(self._ids)}"


def collect(job: Job) -> str:
    """Return all text of a job, waiting for its end. Raises: what ended it, if not a finish."""
    parts = []
    for event in job:
        if isinstance(event, Token):
            parts.append(event.text)
        elif isinstance(event, Failed):
            raise event.error
    return "".join(parts)


def parse_devices(devices: str) -> tuple[int, ...]:
    """Return the device indices of a mask: "cpu" is none. Raises: InvalidInput."""
    if devices == "cpu":
        return ()
    try:
        found = tuple(int(part) for part in devices.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 0 or len(set(found)) != len(found):
        raise InvalidInput(f'devices are "cpu" or indices such as "0,1", not {devices!r}', devices=devices)
    return found
