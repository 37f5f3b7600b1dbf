"""What the tiny model must answer over any library, and what its cache, samplers and interrupts must do.

Greedy text is compared, never sampled text: at high temperatures builds differ in low bits (docs/decisions/002).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from skep.errors.runtime import AbiMismatch, DecodeAborted
from skep.runtime.backend import LoadOptions, SessionOptions
from skep.runtime.llama.backend import LlamaBackend
from skep.runtime.llama.model import LlamaModel
from skep.runtime.llama.session import LlamaSession
from skep.runtime.llama.speaking import chat, feed, go_on, say
from skep.runtime.sampling import SamplingParams

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


def check_model(backend: LlamaBackend, path: Path) -> list[Check]:
    """Return the checks of one file of ours. Raises: as `LlamaBackend.load` and `open_session`."""
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
        if (said := say(model, session, chat(question))) != answer
    }
    return "" if not wrong else f"answered {wrong}"


def _wrong_round_trip(model: LlamaModel, _session: LlamaSession) -> str:
    text = "héllo, 世界 🙂 1234"
    back = b"".join(map(model.piece, model.tokenize(text))).decode("utf-8", "replace")
    return "" if back == text else f"{text!r} became {back!r}"


def _wrong_copy(model: LlamaModel, session: LlamaSession) -> str:
    tokens = model.tokenize(chat("what color is the grass?"), parse_special=True)
    session.sequence_remove(0, 0, -1)
    feed(session, tokens)
    session.sequence_copy(0, 1, 0, -1)
    last = len(tokens) - 1
    session.sequence_remove(1, last, -1)
    row = feed(session, tokens[last:], start=last, sequence=1)
    said = go_on(model, session, row, position=len(tokens), sequence=1)
    return "" if said == "the grass is green." else f"answered {said!r}"


def _wrong_seed(model: LlamaModel, session: LlamaSession) -> str:
    params = SamplingParams(temperature=1.5, seed=7)
    said = {say(model, session, chat("hello"), params) for _ in range(2)}
    return "" if len(said) == 1 else f"the same seed gave {said}"


def _wrong_interrupt(model: LlamaModel, session: LlamaSession) -> str:
    session.interrupt()
    try:
        say(model, session, chat("count from 1 to 9"), sequence=2)
    except DecodeAborted:
        return ""
    finally:
        session.resume()
    return "a decode ran on after an interrupt"
