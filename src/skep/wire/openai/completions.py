"""`POST /v1/completions`: the request."""

from typing import Annotated

from msgspec import Meta

from skep.wire.openai.sampling import N_MAX, ModelName, SamplingFields

PROMPTS_MAX = 64
LOGPROBS_MAX = 20

TokenId = Annotated[int, Meta(ge=0)]
Inputs = str | list[str | list[TokenId] | TokenId]
"""One input or several, as text or token ids."""


def texts_or_tokens(given: Inputs) -> list[str | list[int]] | None:
    """Return each input by itself; None when the forms are mixed."""
    if isinstance(given, str):
        return [given]
    if given and all(isinstance(one, int) for one in given):
        return [[one for one in given if isinstance(one, int)]]
    texts = [one for one in given if isinstance(one, str)]
    lists = [one for one in given if isinstance(one, list)]
    if len(texts) == len(given):
        return list(texts)
    return list(lists) if len(lists) == len(given) else None


class CompletionRequest(SamplingFields, frozen=True, kw_only=True):
    """The body of a text completion. `prompt` is one or several, as text or token ids."""

    model: ModelName
    prompt: Inputs
    logprobs: Annotated[int, Meta(ge=0, le=LOGPROBS_MAX)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None

    def violations(self) -> dict[str, str]:
        """Return what is wrong over several fields."""
        found = self.shared_violations()
        prompts = self.prompts
        if prompts is None:
            found["prompt"] = "must be a text, a list of texts, token ids, or a list of lists of token ids"
        elif not 1 <= len(prompts) <= PROMPTS_MAX:
            found["prompt"] = f"must hold 1 to {PROMPTS_MAX} prompts"
        elif any(isinstance(one, list) and not one for one in prompts):
            found["prompt"] = "must not hold an empty list of tokens"
        elif len(prompts) * (self.n or 1) > max(PROMPTS_MAX, N_MAX):
            found["n"] = f"times the number of prompts must be at most {PROMPTS_MAX}"
        if self.suffix:
            found["suffix"] = "is not supported"
        if self.best_of is not None and self.best_of != (self.n or 1):
            found["best_of"] = "must equal n"
        if self.echo and self.logprobs is not None:
            found["echo"] = "is not supported together with logprobs"
        return found

    @property
    def prompts(self) -> list[str | list[int]] | None:
        """Return each prompt as text or token ids; None when the forms are mixed."""
        return texts_or_tokens(self.prompt)
