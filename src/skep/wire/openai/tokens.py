"""`POST /tokenize` and `/detokenize`: text to token ids and back, in vLLM's shapes."""

from typing import Annotated

import msgspec
from msgspec import Meta

from skep.wire.openai.chat import MESSAGES_MAX, ChatMessage
from skep.wire.openai.completions import TokenId


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Exactly one of `prompt` (a text) and `messages` (rendered by the chat template)."""

    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=MESSAGES_MAX)] | None = None
    model: str | None = None
    add_special_tokens: bool = True
    add_generation_prompt: bool = True

    def violations(self) -> dict[str, str]:
        """Return what is wrong over both."""
        if (self.prompt is None) == (self.messages is None):
            return {"prompt": "exactly one of prompt and messages is required"}
        return {}


class TokenizeResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The ids, and how many a sequence may hold."""

    count: int
    max_model_len: int
    tokens: list[int]


class DetokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Token ids."""

    tokens: Annotated[list[TokenId], Meta(max_length=1_000_000)]
    model: str | None = None


class DetokenizeResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Their text; bytes that are not UTF-8 are replaced."""

    prompt: str
