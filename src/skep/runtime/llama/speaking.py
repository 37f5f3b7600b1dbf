"""The smallest loop that makes a session talk: one sequence, one caller, no engine.

For the self-test, for measuring a model and for tests of the backend; serving is the engine's.
"""

from collections.abc import Sequence
from typing import Final

from skep.runtime.backend import BackendModel, BackendSession, Row
from skep.runtime.sampling import SamplingParams

GREEDY: Final = SamplingParams(temperature=0)


def chat(question: str) -> str:
    """Return a question as the tiny model's chat template puts it."""
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def rows(tokens: Sequence[int], *, start: int = 0, sequence: int = 0) -> list[Row]:
    """Return a row for each token from position `start` on; the last one wants logits."""
    last = len(tokens) - 1
    return [Row(token, start + index, sequence, index == last) for index, token in enumerate(tokens)]


def feed(session: BackendSession, tokens: Sequence[int], *, start: int = 0, sequence: int = 0) -> int:
    """Decode at least one token, in chunks; return the index of the row that has logits. Raises: as `decode`."""
    step = session.options.batch_rows_max
    for at in range(0, len(tokens), step):
        session.decode(rows(tokens[at : at + step], start=start + at, sequence=sequence))
    return (len(tokens) - 1) % step


def go_on(
    model: BackendModel,
    session: BackendSession,
    row: int,
    *,
    position: int,
    params: SamplingParams = GREEDY,
    sequence: int = 0,
    tokens_max: int = 64,
) -> str:
    """Generate from the logits of `row` until an end token; `position` is the next one. Raises: as `decode`."""
    said: list[bytes] = []
    sampler = session.make_sampler(params)
    try:
        token = session.sample(sampler, row)
        while token not in model.info.end_tokens and len(said) < tokens_max:
            said.append(model.piece(token))
            session.decode([Row(token, position + len(said) - 1, sequence, wants_logits=True)])
            token = session.sample(sampler, 0)
    finally:
        sampler.close()
    return b"".join(said).decode("utf-8", "replace")


def say(
    model: BackendModel,
    session: BackendSession,
    prompt: str,
    params: SamplingParams = GREEDY,
    *,
    sequence: int = 0,
    tokens_max: int = 64,
) -> str:
    """Clear the sequence, read the prompt (control tokens too) and return the continuation. Raises: as `decode`."""
    tokens = model.tokenize(prompt, parse_special=True)
    session.sequence_remove(sequence, 0, -1)
    row = feed(session, tokens, sequence=sequence)
    return go_on(
        model, session, row, position=len(tokens), params=params, sequence=sequence, tokens_max=tokens_max
    )
