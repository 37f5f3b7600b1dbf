"""asyncssh, imported without the seven processes that it starts to look for libraries nobody asked for.

Its modules for UMAC and for Streamlined NTRU Prime look for nettle and liboqs by ldconfig, the linker and the C compiler,
each time: a tenth of a second before the first connection. Without them the key exchange is ML-KEM or X25519, and packets
are authenticated by AES-GCM, Poly1305 or HMAC: what every OpenSSH of the last ten years speaks.
"""

import ctypes.util
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def _no_library_search() -> Generator[None]:
    search = ctypes.util.find_library
    ctypes.util.find_library = lambda name: None  # noqa: ARG005 - the signature of what it stands for
    try:
        yield
    finally:
        ctypes.util.find_library = search


with _no_library_search():
    import asyncssh

__all__ = ["asyncssh"]
