"""What the tiny model must answer over any library, and what its cache, samplers and interrupts must do.

Greedy text is compared, never sampled text: at high temperatures builds differ in low bits (docs/decisions/002).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from skep.errors.runtime import AbiMismatch, DecodeAborted
from skep.runtime.backend import LoadOptions, Row, SessionOptions
from skep.runtime.llama.backend import LlamaBackend
from skep.runtime.llama.model import LlamaModel
from skep.runtime.llama.session import LlamaSession
from skep.runtime.sampling import SamplingParams

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
