"""The fields that chat and text completions share: how tokens are chosen, and how many."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from skep.wire.openai.response_format import ResponseFormat

N_MAX = 16
STOP_MAX = 4
STOP_CHARS_MAX = 512
TOKENS_MAX = 1_000_000
LOGIT_BIAS_KEYS_MAX = 1024

Temperature = Annotated[float, Meta(ge=0, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
TokenCount = Annotated[int, Meta(ge=1, le=TOKENS_MAX)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
StopString = Annotated[str, Meta(min_length=1, max_length=STOP_CHARS_MAX)]
Stops = StopString | Annotated[list[StopString], Meta(max_length=STOP_MAX)]
LogitBias = dict[Annotated[int, Meta(ge=0)], Annotated[float, Meta(ge=-100, le=100)]]
ModelName = Annotated[str, Meta(min_length=1, max_length=256)]


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`include_usage`: a last chunk with empty choices and the usage. The other is known and ignored."""

    include_usage: bool = False
    include_obfuscation: bool | None = None


class SamplingFields(msgspec.Struct, frozen=True, kw_only=True):
    """What both kinds of completion take. `top_k`, `min_p`, `repetition_penalty` and `ignore_eos` are vLLM's."""

    temperature: Temperature | None = None
    top_p: Share | None = None
    n: Annotated[int, Meta(ge=1, le=N_MAX)] | None = None
    stop: Stops | None = None
    seed: Seed | None = None
    max_tokens: TokenCount | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    top_k: Annotated[int, Meta(ge=-1, le=1_000_000)] | None = None
    min_p: Share | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    ignore_eos: bool | None = None
    response_format: ResponseFormat | None = None
    grammar: Annotated[str, Meta(min_length=1, max_length=100_000)] | None = None
    user: str | None = None
    metadata: Any = None
    store: bool | None = None
    service_tier: str | None = None

    def shared_violations(self) -> dict[str, str]:
        """Return what is wrong over the shared fields."""
        found: dict[str, str] = {}
        if self.stream_options is not None and not self.stream:
            found["stream_options"] = "is only allowed when stream is true"
        if self.logit_bias is not None and len(self.logit_bias) > LOGIT_BIAS_KEYS_MAX:
            found["logit_bias"] = f"may name at most {LOGIT_BIAS_KEYS_MAX} tokens"
        if self.response_format is not None and self.response_format.type != "text":
            if self.response_format.type == "json_schema" and self.response_format.json_schema is None:
                found["response_format.json_schema"] = "is required for this type"
            if self.grammar is not None:
                found["grammar"] = "excludes response_format"
        return found

    @property
    def stops(self) -> tuple[str, ...]:
        """Return the stop strings as a tuple."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
