"""What a probe says of a replica, and why a replica that is gone is gone.

Three misses in a row are one verdict, so that a slow moment is not a crash; an answer with another's nonce is one at
once, for then the port belongs to somebody else.
"""

import re
from enum import StrEnum, auto

import msgspec

from skep.policy.restart import CrashReason

MISSES_MAX = 3


class Answer(StrEnum):
    """What came back from a probe. `mute`: healthy, but it cannot generate."""

    WELL = auto()
    SILENT = auto()
    MUTE = auto()
    FOREIGN = auto()
    DEVICE_ERROR = auto()


class Finding(StrEnum):
    """What a probe means for the replica."""

    ANSWERED = auto()
    MISSED = auto()
    EXHAUSTED = auto()
    DEVICE_ERROR = auto()


class Probes(msgspec.Struct, frozen=True, kw_only=True):
    """Misses in a row."""

    misses: int = 0


class ProbeVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """The finding and the state that follows."""

    probes: Probes
    finding: Finding


def judge(probes: Probes, answer: Answer, *, misses_max: int = MISSES_MAX) -> ProbeVerdict:
    """Return what an answer means after the ones before it."""
    match answer:
        case Answer.WELL:
            return ProbeVerdict(probes=Probes(), finding=Finding.ANSWERED)
        case Answer.DEVICE_ERROR:
            return ProbeVerdict(probes=probes, finding=Finding.DEVICE_ERROR)
        case Answer.FOREIGN:
            return ProbeVerdict(probes=Probes(misses=misses_max), finding=Finding.EXHAUSTED)
    misses = probes.misses + 1
    finding = Finding.EXHAUSTED if misses >= misses_max else Finding.MISSED
    return ProbeVerdict(probes=Probes(misses=misses), finding=finding)


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a process that ended. `error_code` is what it reported itself; `oom_kills` the kernel's count."""

    exit_code: int | None = None
    signal: int | None = None
    error_code: str = ""
    log_tail: str = ""
    oom_kills: int = 0


_OUT_OF_MEMORY_CODES = frozenset({"insufficient_memory", "device_out_of_memory"})
_DEVICE_CODES = frozenset({"device_error", "device_missing"})
_OUT_OF_MEMORY_TEXT = re.compile(
    r"out of memory|cudaMalloc failed|CUDA_ERROR_OUT_OF_MEMORY|failed to allocate .*buffer|"
    r"MemoryError|std::bad_alloc|ErrorOutOfDeviceMemory",
    re.IGNORECASE,
)
_DEVICE_TEXT = re.compile(
    r"CUDA error|CUDA_ERROR_|cudaError|NVML|Xid|ECC error|device-side assert|driver (?:shutting down|version)|"
    r"illegal memory access|unspecified launch failure|hipError|ROCm error|ErrorDeviceLost",
    re.IGNORECASE,
)
_SIGKILL = 9


def crash_reason(ending: Ending) -> CrashReason:
    """Return why a process ended: what it said itself first, then the kernel, then its last lines, then its exit."""
    if ending.error_code in _OUT_OF_MEMORY_CODES or ending.oom_kills:
        return CrashReason.OUT_OF_MEMORY
    if ending.error_code in _DEVICE_CODES:
        return CrashReason.DEVICE_ERROR
    if ending.exit_code == 0:
        return CrashReason.NORMAL_EXIT
    if not ending.error_code and ending.signal != _SIGKILL:
        if _OUT_OF_MEMORY_TEXT.search(ending.log_tail):
            return CrashReason.OUT_OF_MEMORY
        if _DEVICE_TEXT.search(ending.log_tail):
            return CrashReason.DEVICE_ERROR
    return CrashReason.SIGNAL if ending.signal is not None else CrashReason.EXIT_CODE
