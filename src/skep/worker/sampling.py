"""OpenAI's sampling fields as the engine's."""

from skep.runtime.request import Constraint
from skep.runtime.sampling import SEED_MAX, SamplingParams
from skep.wire.openai.sampling import SamplingFields


def params_of(fields: SamplingFields, *, choice: int = 0) -> SamplingParams:
    """Return the parameters of one choice: with a seed, each of `n` choices gets its own, counted up from it."""
    return SamplingParams(
        temperature=1.0 if fields.temperature is None else fields.temperature,
        top_k=max(0, fields.top_k or 0),
        top_p=1.0 if fields.top_p is None else fields.top_p,
        min_p=fields.min_p or 0.0,
        repetition_penalty=fields.repetition_penalty or 1.0,
        presence_penalty=fields.presence_penalty or 0.0,
        frequency_penalty=fields.frequency_penalty or 0.0,
        logit_bias=fields.logit_bias or {},
        seed=None if fields.seed is None else (fields.seed + choice) & SEED_MAX,
    )


def grammar_of(fields: SamplingFields) -> Constraint | None:
    """Return the constraint of llama-server's `grammar` field, a GBNF text."""
    return Constraint(kind="gbnf", text=fields.grammar) if fields.grammar else None
