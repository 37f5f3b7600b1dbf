"""The llama.cpp backend: the one name that the rest of the runtime needs."""

from collections.abc import Callable
from pathlib import Path

from skep.runtime import gguf
from skep.runtime.backend import LoadOptions
from skep.runtime.llama.discovery import Candidate
from skep.runtime.llama.library import Library, LibraryInfo, open_library
from skep.runtime.llama.loading import load_model
from skep.runtime.llama.model import LlamaModel


class LlamaBackend:
    """Implements `Backend`. Finds and probes the library when first needed; `candidate` names one to take instead."""

    name = "llama"

    def __init__(self, candidate: Candidate | None = None) -> None:
        self._candidate = candidate

    @property
    def library(self) -> Library:
        """The library in use. Raises: LibraryUnavailable, AbiMismatch."""
        return open_library(self._candidate)

    def library_info(self) -> LibraryInfo:
        """Return what the library says of itself. Raises: LibraryUnavailable, AbiMismatch."""
        return self.library.info()

    def load(
        self, path: Path, options: LoadOptions, *, on_progress: Callable[[float], None] | None = None
    ) -> LlamaModel:
        """Load a GGUF file; `on_progress` gets 0..1, and stops the load by raising.

        Raises: ModelNotFound, ModelLoadFailed and its kinds, InsufficientMemory, DeviceMissing, LibraryUnavailable.
        """
        header = gguf.preflight(path)
        library = self.library
        library.check_process()
        loaded = load_model(
            library, path, options, size_bytes=gguf.weights_bytes(path, header), on_progress=on_progress
        )
        return LlamaModel(library, loaded, header)
