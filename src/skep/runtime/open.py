"""Which backends there are, by name."""

from skep.errors import InvalidInput
from skep.runtime.backend import Backend

BACKENDS = ("llama", "fake")


def open_backend(name: str) -> Backend:
    """Return the backend of this name; llama's library is looked for now.

    Raises: InvalidInput (unknown name), LibraryUnavailable and AbiMismatch (llama).
    """
    if name == "fake":
        from skep.runtime.fake import FakeBackend

        return FakeBackend()
    if name == "llama":
        from skep.runtime.llama import (
            LlamaBackend,
        )  # only now: ctypes and the library are not needed by the fake

        return LlamaBackend()
    raise InvalidInput(f"no backend is called {name!r}; there are {', '.join(BACKENDS)}", backend=name)
