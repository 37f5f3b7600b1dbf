"""Proves a library on this machine: known answers of the tiny model, options read back, an interrupt that interrupts.

Each provider is tried in a process of its own, so that one that crashes is a result and not the end of the caller.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from skep.errors import SkepError
from skep.runtime.llama.backend import LlamaBackend
from skep.runtime.llama.discovery import Candidate, candidates
from skep.runtime.llama.golden import Check, check_model
from skep.runtime.llama.library import LibraryInfo
from skep.runtime.models import TINY, TINY_Q8, verify

_T = TypeVar("_T", Candidate, "SelfTestResult")

TIMEOUT_S: Final = 120.0
STDERR_CHARS_MAX: Final = 2_000
_CHILD_ARGUMENTS: Final = 3


class SelfTestResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one library. `info` is None when it could not be loaded; `error` says why it came to no end."""

    candidate: Candidate
    info: LibraryInfo | None = None
    checks: tuple[Check, ...] = ()
    error: str = ""

    @property
    def is_ok(self) -> bool:
        """True when every check passed."""
        return not self.error and bool(self.checks) and all(check.is_ok for check in self.checks)


def self_test(
    found: Sequence[Candidate] | None = None, *, timeout_s: float = TIMEOUT_S
) -> list[SelfTestResult]:
    """Try each library (default: all that are found) with the tiny model. Raises: LibraryUnavailable (bad variable)."""
    return [
        _in_child(candidate, "--test", timeout_s) for candidate in (candidates() if found is None else found)
    ]


def describe(
    found: Sequence[Candidate] | None = None, *, timeout_s: float = TIMEOUT_S
) -> list[SelfTestResult]:
    """Say what each library is (version, layout, system, devices) without loading a model. Raises: as `self_test`."""
    return [
        _in_child(candidate, "--describe", timeout_s)
        for candidate in (candidates() if found is None else found)
    ]


def _in_child(candidate: Candidate, verb: str, timeout_s: float) -> SelfTestResult:
    argv = [sys.executable, "-m", "skep.runtime.llama.selftest", verb, _encode(candidate).decode()]
    # A file, not a pipe: a library that talks much cannot block on us.
    with tempfile.TemporaryFile() as complaints:
        try:
            done = subprocess.run(
                argv,
                stdout=subprocess.PIPE,
                stderr=complaints,
                stdin=subprocess.DEVNULL,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return SelfTestResult(candidate=candidate, error=f"no answer within {timeout_s:g} s")
        try:
            return _decode(done.stdout, SelfTestResult)
        except msgspec.DecodeError:
            complaints.seek(0)
            said = complaints.read().decode("utf-8", "replace").strip()[-STDERR_CHARS_MAX:]
            return SelfTestResult(candidate=candidate, error=f"{_ending(done.returncode)}: {said}")


def _ending(code: int) -> str:
    if code < 0:
        return f"it was ended by {signal.Signals(-code).name}"
    return f"it ended with code {code}"


def run_here(candidate: Candidate, *, only_describe: bool = False) -> SelfTestResult:
    """Try one library in this process. A failed check is a result; nothing is raised for it."""
    backend = LlamaBackend(candidate)
    try:
        info = backend.library_info()
        if only_describe:
            return SelfTestResult(candidate=candidate, info=info)
        verify(["tiny-f16.gguf", "tiny-q8_0.gguf"])
        checks = [check for path in (TINY, TINY_Q8) for check in check_model(backend, path)]
    except SkepError as error:
        return SelfTestResult(candidate=candidate, error=f"{error.code}: {error}")
    return SelfTestResult(candidate=candidate, info=info, checks=tuple(checks))


def _encode(value: Candidate | SelfTestResult) -> bytes:
    return msgspec.json.encode(value, enc_hook=str)


def _decode(data: bytes, kind: type[_T]) -> _T:
    return msgspec.json.decode(data, type=kind, dec_hook=lambda wanted, value: wanted(value))


def _main() -> int:
    """Answer one question as a child (verb and candidate given), or try everything that is found and print it."""
    if len(sys.argv) == _CHILD_ARGUMENTS:
        verb, text = sys.argv[1:]
        result = run_here(_decode(text.encode(), Candidate), only_describe=verb == "--describe")
        os.write(sys.stdout.fileno(), _encode(result))
        return 0
    results = self_test()
    for result in results:
        sys.stdout.write(report(result) + "\n")
    return 0 if results and all(result.is_ok for result in results) else 1


def report(result: SelfTestResult) -> str:
    """Return a result as a few lines for people."""
    candidate = result.candidate
    head = f"{'ok' if result.is_ok else 'FAILED'}  {candidate.provider} {candidate.version} {candidate.path}".replace(
        "  /", " /"
    )
    failed = [f"    {check.name}: {check.detail}" for check in result.checks if not check.is_ok]
    return "\n".join([head, *([f"    {result.error}"] if result.error else []), *failed])


if __name__ == "__main__":
    sys.exit(_main())
