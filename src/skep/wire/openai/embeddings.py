"""`POST /v1/embeddings`: request and response."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from skep.wire.openai.completions import Inputs, texts_or_tokens
from skep.wire.openai.sampling import ModelName

INPUTS_MAX = 2048


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an embedding: one or several inputs, as text or token ids."""

    model: ModelName
    input: Inputs
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = None

    def violations(self) -> dict[str, str]:
        """Return what is wrong over several fields."""
        inputs = self.inputs
        if inputs is None:
            return {"input": "must be a text, a list of texts, token ids, or a list of lists of token ids"}
        if not 1 <= len(inputs) <= INPUTS_MAX:
            return {"input": f"must hold 1 to {INPUTS_MAX} inputs"}
        if any(not one for one in inputs):
            return {"input": "must not hold an empty input"}
        return {}

    @property
    def inputs(self) -> list[str | list[int]] | None:
        """Return each input as text or token ids; None when the forms are mixed."""
        return texts_or_tokens(self.input)


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    """One vector: floats, or base64 of little-endian 32-bit floats."""

    index: int
    embedding: list[float] | str
    object: str = "embedding"


class EmbeddingUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What was read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The vectors, in the order of the inputs."""

    model: str
    data: list[Embedding]
    usage: EmbeddingUsage
    object: str = "list"
