"""From load options to a C model: devices, split, load mode, progress, and the log turned into a typed error."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from skep.errors import InvalidInput, SkepError
from skep.errors.runtime import DeviceMissing, UnsupportedArchitecture
from skep.runtime import gguf
from skep.runtime.backend import LoadOptions, MemoryUse
from skep.runtime.llama import memory
from skep.runtime.llama.budget import check_ram
from skep.runtime.llama.devices import device_handles
from skep.runtime.llama.layout import ProgressCallback
from skep.runtime.llama.library import Library
from skep.runtime.llama.log import load_failure

OnProgress = Callable[[float], None]

ALL_LAYERS: Final = 1_000_000
LORA_SCALE_MAX: Final = 100.0
_LOAD_MODES: Final = {(False, False): 0, (True, False): 1, (False, True): 2, (True, True): 3}
_SPLIT_NONE, _SPLIT_LAYER = 0, 1


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A C model and what must live as long as it does."""

    handle: int
    adapters: tuple[tuple[int, float], ...]
    memory: MemoryUse
    has_devices: bool


class _Progress:
    """Hands progress to Python from inside C: what it raises stops the load, and is raised again afterwards."""

    def __init__(self, notify: OnProgress | None) -> None:
        self._notify = notify
        self.raised: BaseException | None = None
        self.callback = ProgressCallback(self._advance)

    def _advance(self, share: float, _user: object) -> bool:
        if self._notify is None:
            return True
        try:
            self._notify(min(1.0, max(0.0, share)))
        except BaseException as error:  # noqa: BLE001 - kept, and raised again once C has returned
            self.raised = error
            return False
        return True


def load_model(
    library: Library, path: Path, options: LoadOptions, *, size_bytes: int, on_progress: OnProgress | None
) -> LoadedModel:
    """Load a file that passed its pre-flight.

    Raises: ModelLoadFailed and its kinds, InsufficientMemory, DeviceMissing, InvalidInput, and what `on_progress` raises.
    """
    _check_options(options)
    if not options.devices:
        check_ram(size_bytes, what=f"{path.name}")
    progress = _Progress(on_progress)
    with library.log.lock:
        mark = library.log.mark()
        handle = _load(library, path, options, progress)
        if progress.raised is not None:
            if handle:
                library.api.llama_model_free(handle)
            raise progress.raised
        if not handle:
            raise load_failure(library.log.complaint(mark), path=str(path))
        try:
            held = memory.buffers(library.log.since(mark))
            _check_kind(library, handle, path)
            _check_offload(options, held)
            adapters = tuple(
                _load_adapter(library, handle, name, scale) for name, scale in options.lora_adapters
            )
        except SkepError:
            library.api.llama_model_free(handle)
            raise
    return LoadedModel(
        handle=handle,
        adapters=adapters,
        memory=held
        if held.ram_bytes or held.device_bytes
        else MemoryUse(ram_bytes=size_bytes, device_bytes=0),
        has_devices=bool(options.devices),
    )


def _check_options(options: LoadOptions) -> None:
    if options.split and len(options.split) != len(options.devices):
        raise InvalidInput(
            f"{len(options.split)} split shares for {len(options.devices)} devices; give one for each device",
            split=options.split,
        )
    if any(not 0.0 <= share < float("inf") for share in options.split) or (
        options.split and not sum(options.split)
    ):
        raise InvalidInput("split shares must be positive numbers", split=options.split)
    if any(not -LORA_SCALE_MAX <= scale <= LORA_SCALE_MAX for _, scale in options.lora_adapters):
        raise InvalidInput(f"a LoRA scale must be between -{LORA_SCALE_MAX:g} and {LORA_SCALE_MAX:g}")


def _load(library: Library, path: Path, options: LoadOptions, progress: _Progress) -> int | None:
    api = library.api
    params = api.llama_model_default_params()
    handles = device_handles(api, options.devices)
    devices = (ctypes.c_void_p * (len(handles) + 1))(*handles, None)
    shares = (ctypes.c_float * max(api.llama_max_devices(), len(handles), 1))(*options.split)
    params.devices = ctypes.addressof(devices)
    params.n_gpu_layers = _gpu_layers(options)
    params.split_mode = _SPLIT_LAYER if len(handles) > 1 else _SPLIT_NONE
    params.main_gpu = 0
    params.tensor_split = ctypes.addressof(shares) if options.split else None
    params.load_mode = _LOAD_MODES[options.use_mmap, options.use_mlock]
    params.check_tensors = options.check_tensors
    params.progress_callback = ctypes.cast(progress.callback, ctypes.c_void_p)
    handle: int | None = api.llama_model_load_from_file(os.fsencode(path), params)
    return handle


def _gpu_layers(options: LoadOptions) -> int:
    if not options.devices:
        return 0
    return ALL_LAYERS if options.gpu_layers < 0 else min(options.gpu_layers, ALL_LAYERS)


def _check_kind(library: Library, handle: int, path: Path) -> None:
    """Refuse what `decode` cannot run: it would read the output of an encoder that never ran."""
    if library.api.llama_model_has_encoder(handle) and library.api.llama_model_has_decoder(handle):
        raise UnsupportedArchitecture(
            f"{path} is an encoder-decoder model, which skep does not run", path=str(path)
        )


def _check_offload(options: LoadOptions, held: MemoryUse) -> None:
    """Refuse a model that was meant for a GPU and did not reach it: there is no silent fall-back to the CPU."""
    if options.devices and options.gpu_layers and not held.device_bytes:
        raise DeviceMissing(
            f"no layer reached device {options.devices}; is this llama.cpp library built for it?",
            devices=options.devices,
        )


def _load_adapter(library: Library, model: int, name: str, scale: float) -> tuple[int, float]:
    """Return an adapter's handle; the library frees it with its model."""
    mark = library.log.mark()
    path = Path(name)
    gguf.preflight_adapter(path)
    handle: int | None = library.api.llama_adapter_lora_init(model, os.fsencode(path))
    if not handle:
        raise load_failure(library.log.complaint(mark), path=str(path))
    return handle, scale
