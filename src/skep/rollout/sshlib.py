"""asyncssh, imported without what takes long and serves nobody here.

Its modules for UMAC and for Streamlined NTRU Prime look for nettle and liboqs by ldconfig, the linker and the C compiler,
seven processes each time: a tenth of a second before the first connection. Without them the key exchange is ML-KEM or
X25519, and packets are authenticated by AES-GCM, Poly1305 or HMAC: what every OpenSSH of the last ten years speaks.
X.509 certificates, which OpenSSH does not speak at all, are a sixth of the rest.
"""

import ctypes.util
import sys
from collections.abc import Generator
from contextlib import contextmanager

X509 = "cryptography.x509"


@contextmanager
def _lean() -> Generator[None]:
    search, is_ours = ctypes.util.find_library, X509 not in sys.modules
    ctypes.util.find_library = lambda name: None  # noqa: ARG005 - the signature of what it stands for
    if is_ours:
        sys.modules[X509] = None  # type: ignore[assignment] # The documented way to make an import fail.
    try:
        yield
    finally:
        ctypes.util.find_library = search
        if is_ours:
            del sys.modules[X509]


with _lean():
    import asyncssh

__all__ = ["asyncssh"]
