"""OpenAI's sampling fields as the engine's."""

from skep.runtime.request import Constraint
from skep.runtime.sampling import SEED_MAX, SamplingParams
from skep.wire.openai.sampling import SamplingFields
from skep.worker.chunks import encode_json


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


def constraint_of(fields: SamplingFields) -> Constraint | None:
    """Return what the answer must match: the response format, or the GBNF text of llama-server's `grammar` field."""
    wanted = fields.response_format
    if wanted is not None and wanted.type == "json_object":
        return Constraint(kind="json_object")
    if wanted is not None and wanted.type == "json_schema" and wanted.json_schema is not None:
        return Constraint(kind="json_schema", text=encode_json(wanted.json_schema.schema).decode())
    return Constraint(kind="gbnf", text=fields.grammar) if fields.grammar else None
