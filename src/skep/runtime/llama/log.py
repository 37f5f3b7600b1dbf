"""What llama.cpp says, and which of our errors it means.

Its log callback is global to the library, so all lines land in one bounded ring; whoever starts something marks the
ring and reads what came after the mark. Loads and context creations are serialised by `lock`, so lines are theirs.
"""

import ctypes
import threading
from collections import deque
from typing import Any, Final

from skep.errors import SkepError
from skep.errors.runtime import (
    DeviceError,
    DeviceMissing,
    DeviceOutOfMemory,
    GgufMalformed,
    GgufTruncated,
    InsufficientMemory,
    ModelLoadFailed,
    TensorMissing,
    UnsupportedArchitecture,
)
from skep.runtime.llama.layout import LogCallback

LINES_MAX: Final = 2_000
TAIL_CHARS_MAX: Final = 400

# ggml.h, enum ggml_log_level.
LEVEL_DEBUG: Final = 1
LEVEL_WARN: Final = 3
LEVEL_CONT: Final = 5


class Log:
    """The last lines of one library, oldest first."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._lines: deque[tuple[int, int, str]] = deque(maxlen=LINES_MAX)
        self._count = 0
        self._level = 0
        self.callback = LogCallback(self._append)

    @property
    def address(self) -> Any:
        """The callback as C sees it; valid while this object lives."""
        return ctypes.cast(self.callback, ctypes.c_void_p)

    def mark(self) -> int:
        """Return a position for `since`."""
        return self._count

    def since(self, mark: int, *, level_min: int = 0) -> list[str]:
        """Return the lines after `mark` of at least `level_min`; the oldest are gone when over LINES_MAX came."""
        return [text for number, level, text in list(self._lines) if number > mark and level >= level_min]

    def complaint(self, mark: int) -> str:
        """Return the warnings and errors after `mark` as one line, its end where it is long."""
        lines = self.since(mark, level_min=LEVEL_WARN)
        return "; ".join(line for line in lines if line)[-TAIL_CHARS_MAX:]

    def _append(self, level: int, text: bytes | None, _user: object) -> None:
        # Called from C: nothing may escape from here, and it may run while Python shuts down.
        line = " ".join((text or b"").decode("utf-8", "replace").split())
        if level == LEVEL_CONT:
            level = self._level
        self._level = level
        if line and level > LEVEL_DEBUG:
            self._count += 1
            self._lines.append((self._count, level, line))


_LOAD_FAILURES: Final[tuple[tuple[tuple[str, ...], type[SkepError]], ...]] = (
    (("unknown model architecture", "unsupported model architecture"), UnsupportedArchitecture),
    (("unknown pre-tokenizer", "unknown tokenizer", "unsupported vocab"), UnsupportedArchitecture),
    (
        (
            "wrong number of tensors",
            "missing tensor",
            "wrong shape",
            "not found in the model",
            "check_tensor_dims",
        ),
        TensorMissing,
    ),
    (
        ("not within the file bounds", "failed to read", "unexpectedly reached end", "end of file"),
        GgufTruncated,
    ),
    (
        ("unable to allocate", "failed to allocate", "cannot allocate", "bad_alloc", "out of memory"),
        InsufficientMemory,
    ),
    (("invalid device", "no usable gpu", "no cuda-capable device"), DeviceMissing),
    (("cuda error", "hip error", "vk::"), DeviceError),
    (("invalid data", "invalid", "corrupt", "key not found", "duplicate"), GgufMalformed),
)

_COMPUTE_FAILURES: Final[tuple[tuple[tuple[str, ...], type[SkepError]], ...]] = (
    (("out of memory", "failed to allocate", "unable to allocate"), DeviceOutOfMemory),
    (("cuda error", "hip error", "vk::"), DeviceError),
)


def load_failure(text: str, *, path: str) -> SkepError:
    """Return the error that the log of a failed load means."""
    kind = _first_match(text, _LOAD_FAILURES) or ModelLoadFailed
    return kind(f"{path} could not be loaded: {text or 'the library gave no reason'}", path=path, log=text)


def compute_failure_kind(text: str) -> type[SkepError] | None:
    """Return the device failure that the log of a failed computation means; None when it names none."""
    return _first_match(text, _COMPUTE_FAILURES)


def _first_match(
    text: str, table: tuple[tuple[tuple[str, ...], type[SkepError]], ...]
) -> type[SkepError] | None:
    lowered = text.lower()
    return next((kind for needles, kind in table if any(needle in lowered for needle in needles)), None)
