"""A loaded model: weights, vocabulary, and the sessions that keep it open."""

import threading
from typing import Any

from skep.errors.runtime import ModelInUse
from skep.runtime.backend import MemoryUse, ModelInfo, SessionOptions
from skep.runtime.gguf import Header
from skep.runtime.llama.library import Library
from skep.runtime.llama.lifecycle import Native
from skep.runtime.llama.loading import LoadedModel
from skep.runtime.llama.session import LlamaSession
from skep.runtime.llama.vocabulary import Vocabulary


class LlamaModel(Native):
    """Implements `BackendModel`. `tokenize` and `piece` may be called from any thread."""

    _noun = "model"

    def __init__(self, library: Library, loaded: LoadedModel, header: Header) -> None:
        super().__init__()
        self._library = library
        self.loaded = loaded
        self.header = header
        self._using = threading.RLock()
        self._sessions = 0
        self._vocabulary = Vocabulary(library.api, library.api.llama_model_get_vocab(loaded.handle))
        self.info = _describe(library.api, loaded.handle, header, self._vocabulary)

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Return token ids. Raises: InvalidInput (over 64 MiB, lone surrogates), Closed."""
        with self._using:
            if not self.is_open:
                raise self._refusal()
            return self._vocabulary.tokenize(text, add_special=add_special, parse_special=parse_special)

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes of one token; control tokens give b"" unless `special`. Raises: InvalidToken, Closed."""
        with self._using:
            if not self.is_open:
                raise self._refusal()
            return self._vocabulary.piece(token, special=special)

    def open_session(self, options: SessionOptions) -> LlamaSession:
        """Return a new context. Raises: InsufficientMemory, DeviceOutOfMemory, InvalidInput, Closed."""
        with self._using:
            if not self.is_open:
                raise self._refusal()
            self._sessions += 1
        try:
            return LlamaSession(self._library, self, options)
        except BaseException:
            self.session_closed()
            raise

    def session_closed(self) -> None:
        """Take note that a session let go of the weights."""
        with self._using:
            self._sessions -= 1

    def memory(self) -> MemoryUse:
        """Return what the weights hold, as the library told when it loaded them. Raises: Closed."""
        if not self.is_open:
            raise self._refusal()
        return self.loaded.memory

    def _before_close(self) -> None:
        if self._sessions:
            raise ModelInUse(
                f"{self.info.name} has {self._sessions} open sessions; close them first",
                sessions=self._sessions,
            )

    def close(self) -> None:
        """Free the weights; closing twice is fine. Raises: ModelInUse while a session is open."""
        with self._using:
            super().close()

    def _release(self) -> None:
        self._library.api.llama_model_free(self.loaded.handle)


def _describe(api: Any, handle: int, header: Header, vocabulary: Vocabulary) -> ModelInfo:
    template = api.llama_model_chat_template(handle, None)
    return ModelInfo(
        name=header.name,
        architecture=header.architecture,
        quantization=header.quantization,
        parameters=api.llama_model_n_params(handle),
        size_bytes=api.llama_model_size(handle),
        vocab_size=vocabulary.size,
        context_train=api.llama_model_n_ctx_train(handle),
        embedding_size=api.llama_model_n_embd(handle),
        layers=api.llama_model_n_layer(handle),
        tokenizer=header.tokenizer or vocabulary.kind,
        bos_token=vocabulary.bos_token,
        eos_token=vocabulary.eos_token,
        end_tokens=vocabulary.end_tokens,
        add_bos=vocabulary.adds_bos,
        chat_template=template.decode("utf-8", "replace") if template else None,
        only_embeds=header.only_embeds,
    )
