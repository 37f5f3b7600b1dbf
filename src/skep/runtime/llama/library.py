"""One loaded llama.cpp library: probed, its log captured, its backends initialised. Loaded once a process, never unloaded."""

import atexit
import ctypes
import os
import threading
from pathlib import Path
from typing import Any, Final

import msgspec

from skep.errors.runtime import AbiMismatch, LibraryUnavailable
from skep.runtime.llama import discovery
from skep.runtime.llama.api import Api, struct_writer
from skep.runtime.llama.devices import LibraryDevice, list_devices
from skep.runtime.llama.discovery import Candidate, Provider
from skep.runtime.llama.log import Log
from skep.runtime.llama.penalties import penalty_arguments
from skep.runtime.llama.probe import Layout, probe

# llama.h, enum llama_load_mode: the names that its own getter gives.
LOAD_MODES: Final = {0: b"none", 1: b"mmap", 2: b"mlock", 3: b"mmap+mlock"}


class LibraryInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a library says of itself, without a model."""

    path: str
    provider: Provider
    version: str
    build: str
    context_params_bytes: int
    model_params_bytes: int
    system: str
    supports_gpu: bool
    devices: tuple[LibraryDevice, ...]


class Library:
    """A library that passed the probe. `api` holds its functions, `log` what it said."""

    def __init__(self, candidate: Candidate) -> None:
        """Load and probe. Raises: LibraryUnavailable (cannot be loaded), AbiMismatch (unknown structures)."""
        self.candidate = candidate
        self.has_computed = False
        self._pid = os.getpid()
        path = str(candidate.path)
        # On a failed assertion ggml would start a debugger and attach it to us.
        os.environ.setdefault("GGML_NO_BACKTRACE", "1")
        dropping, keeping = _load(path, ctypes.CDLL), _load(path, ctypes.PyDLL)
        self.layout = _probe(keeping, path)
        self.api: Any = Api(path=path, dropping=dropping, keeping=keeping, layout=self.layout)
        self.log = Log()
        self.api.llama_log_set(self.log.address, None)
        # A line that C says after Python has shut down must not find our callback.
        atexit.register(self.api.llama_log_set, None, None)
        self.api.llama_backend_init()
        if self.api.ggml_backend_dev_count() == 0:
            self.api.ggml_backend_load_all_from_path(os.fsencode(candidate.path.parent))
        if self.api.ggml_backend_dev_count() == 0:
            raise LibraryUnavailable(
                f"{path} has no compute backend; rebuild it with the CPU backend", path=path
            )
        self.penalty_arguments = penalty_arguments(self.api, path=path)

    def check_process(self) -> None:
        """Refuse a forked child of a process that computed: its thread pool is gone, and a decode hangs.

        Raises: LibraryUnavailable.
        """
        if self.has_computed and os.getpid() != self._pid:
            raise LibraryUnavailable(
                f"{self.candidate.path} was used before this process was forked; start processes with spawn",
                path=str(self.candidate.path),
            )

    def info(self) -> LibraryInfo:
        """Return what the library says of itself; asks the devices for their free memory."""
        version = self.api.llama_version
        return LibraryInfo(
            path=str(self.candidate.path),
            provider=self.candidate.provider,
            version=self.candidate.version,
            build=version().decode("utf-8", "replace") if version else "",
            context_params_bytes=self.layout.context_bytes,
            model_params_bytes=self.layout.model_bytes,
            system=self.api.llama_print_system_info().decode("utf-8", "replace").strip(),
            supports_gpu=bool(self.api.llama_supports_gpu_offload()),
            devices=tuple(list_devices(self.api)),
        )


_opened: dict[Path, Library] = {}
_opening = threading.Lock()


def open_library(candidate: Candidate | None = None) -> Library:
    """Return the library of `candidate` (default: the best one found), loading it on the first call.

    Raises: LibraryUnavailable, AbiMismatch.
    """
    chosen = discovery.best() if candidate is None else candidate
    key = chosen.path.resolve()
    with _opening:
        if key not in _opened:
            _opened[key] = Library(chosen)
        return _opened[key]


def _load(path: str, kind: type[ctypes.CDLL]) -> ctypes.CDLL:
    try:
        return kind(path)
    except OSError as error:
        # OpenMP's run-time library is not on a minimal Debian, and the wheel does not bring it.
        hint = ". Next: sudo apt-get install libgomp1" if "libgomp" in str(error) else ""
        raise LibraryUnavailable(f"{path} cannot be loaded: {error}{hint}", path=path) from error


def _probe(library: ctypes.CDLL, path: str) -> Layout:
    found = probe(
        path=path,
        model=struct_writer(library, "llama_model_default_params", path=path),
        context=struct_writer(library, "llama_context_default_params", path=path),
        batch=struct_writer(
            library, "llama_batch_get_one", path=path, zeros=(ctypes.c_void_p, ctypes.c_int32)
        ),
    )
    _check_load_modes(library, path)
    return found


def _check_load_modes(library: ctypes.CDLL, path: str) -> None:
    try:
        name = library["llama_load_mode_name"]
    except AttributeError:
        return
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.c_int]
    wrong = {mode: name(mode) for mode, known in LOAD_MODES.items() if name(mode) != known}
    if wrong:
        raise AbiMismatch(f"{path}: unexpected load modes {wrong}; use a provider that skep knows", path=path)
