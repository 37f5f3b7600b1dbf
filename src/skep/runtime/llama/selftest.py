"""Proves a library on this machine: known answers of the tiny model, options read back, an interrupt that interrupts.

Each provider is tried in a process of its own, so that one that crashes is a result and not the end of the caller.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from skep.errors import SkepError
from skep.errors.runtime import AbiMismatch, DecodeAborted
from skep.runtime.backend import LoadOptions, Row, SessionOptions
from skep.runtime.llama.backend import LlamaBackend
from skep.runtime.llama.discovery import Candidate, candidates
from skep.runtime.llama.library import LibraryInfo
from skep.runtime.llama.model import LlamaModel
from skep.runtime.llama.session import LlamaSession
from skep.runtime.models import TINY, TINY_Q8, verify
from skep.runtime.sampling import SamplingParams

_T = TypeVar("_T", Candidate, "SelfTestResult")

TIMEOUT_S: Final = 120.0
STDERR_CHARS_MAX: Final = 2_000
_CHILD_ARGUMENTS: Final = 3
ANSWER_TOKENS_MAX: Final = 64

GOLDEN_ANSWERS: Final = {
    "what color is the sky?": "the sky is blue.",
    "count from 3 to 12": "3 4 5 6 7 8 9 10 11 12.",
    "json for bob age 42": '{"name": "bob", "age": 42}',
}


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was tried. `detail` says what was found when it failed."""

    name: str
    is_ok: bool
    detail: str = ""


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
        checks = [check for path in (TINY, TINY_Q8) for check in _check_model(backend, path)]
    except SkepError as error:
        return SelfTestResult(candidate=candidate, error=f"{error.code}: {error}")
    return SelfTestResult(candidate=candidate, info=info, checks=tuple(checks))


def _check_model(backend: LlamaBackend, path: Path) -> list[Check]:
    options = SessionOptions(sequences=3, context=320, batch_rows_max=192, threads=1, threads_batch=2)
    tried: dict[str, Callable[[LlamaModel, LlamaSession], str]] = {
        "golden answers": _wrong_answers,
        "tokenize and back": _wrong_round_trip,
        "copied prefix": _wrong_copy,
        "seeded sampling": _wrong_seed,
        "interrupt": _wrong_interrupt,
    }
    checks: list[Check] = []
    with backend.load(path, LoadOptions()) as model:
        try:
            # Opening reads back what it set, and refuses the library when that differs.
            with model.open_session(options) as session:
                checks.append(Check(name=f"{path.stem}: options read back", is_ok=True))
                for name, wrong in tried.items():
                    detail = wrong(model, session)
                    checks.append(Check(name=f"{path.stem}: {name}", is_ok=not detail, detail=detail))
        except AbiMismatch as error:
            checks.append(Check(name=f"{path.stem}: options read back", is_ok=False, detail=str(error)))
    return checks


def _wrong_answers(model: LlamaModel, session: LlamaSession) -> str:
    wrong = {
        question: said
        for question, answer in GOLDEN_ANSWERS.items()
        if (said := _answer(model, session, question)) != answer
    }
    return "" if not wrong else f"answered {wrong}"


def _wrong_round_trip(model: LlamaModel, _session: LlamaSession) -> str:
    text = "héllo, 世界 🙂 1234"
    back = b"".join(map(model.piece, model.tokenize(text))).decode("utf-8", "replace")
    return "" if back == text else f"{text!r} became {back!r}"


def _wrong_copy(model: LlamaModel, session: LlamaSession) -> str:
    tokens = _feed(model, session, "what color is the grass?", sequence=0)
    session.sequence_copy(0, 1, 0, -1)
    session.sequence_remove(1, len(tokens) - 1, -1)
    session.decode([Row(tokens[-1], len(tokens) - 1, 1, wants_logits=True)])
    said = _generate(model, session, 0, position=len(tokens), sequence=1)
    return "" if said == "the grass is green." else f"answered {said!r}"


def _wrong_seed(model: LlamaModel, session: LlamaSession) -> str:
    params = SamplingParams(temperature=1.5, seed=7)
    said = {_answer(model, session, "hello", params) for _ in range(2)}
    return "" if len(said) == 1 else f"the same seed gave {said}"


def _wrong_interrupt(model: LlamaModel, session: LlamaSession) -> str:
    session.interrupt()
    try:
        _feed(model, session, "count from 1 to 9", sequence=2)
    except DecodeAborted:
        return ""
    finally:
        session.resume()
    return "a decode ran on after an interrupt"


def _answer(
    model: LlamaModel, session: LlamaSession, question: str, params: SamplingParams | None = None
) -> str:
    tokens = _feed(model, session, question, sequence=0)
    return _generate(model, session, len(tokens) - 1, position=len(tokens), sequence=0, params=params)


def _feed(model: LlamaModel, session: LlamaSession, question: str, *, sequence: int) -> list[int]:
    prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    tokens = model.tokenize(prompt, parse_special=True)
    session.sequence_remove(sequence, 0, -1)
    last = len(tokens) - 1
    session.decode([Row(token, index, sequence, index == last) for index, token in enumerate(tokens)])
    return tokens


def _generate(
    model: LlamaModel,
    session: LlamaSession,
    row: int,
    *,
    position: int,
    sequence: int,
    params: SamplingParams | None = None,
) -> str:
    said: list[bytes] = []
    with session.make_sampler(params or SamplingParams(temperature=0)) as sampler:
        token = session.sample(sampler, row)
        while token not in model.info.end_tokens and len(said) < ANSWER_TOKENS_MAX:
            said.append(model.piece(token))
            session.decode([Row(token, position + len(said) - 1, sequence, wants_logits=True)])
            token = session.sample(sampler, 0)
    return b"".join(said).decode("utf-8", "replace")


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
