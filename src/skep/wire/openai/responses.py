"""What completions answer: whole, or in chunks. Clients of any OpenAI-compatible server read with these."""

from typing import Any

import msgspec

from skep.wire.openai.chat import ToolCall


class PromptDetails(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the prompt a cached prefix covered."""

    cached_tokens: int = 0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of a request over all its choices."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None


class TopLogprob(msgspec.Struct, frozen=True, kw_only=True):
    """A token that was likely here. `bytes` holds what `token` cannot: pieces of a character."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class ChatLogprob(TopLogprob, frozen=True, kw_only=True):
    """The token that was chosen, and its rivals."""

    top_logprobs: list[TopLogprob] = msgspec.field(default_factory=list)


class ChatLogprobs(msgspec.Struct, frozen=True, kw_only=True):
    """A choice's tokens."""

    content: list[ChatLogprob] | None = None


class AnswerMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The message of a choice."""

    role: str = msgspec.field(default="assistant")
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    refusal: str | None = None


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What every choice has, whole or in a chunk."""

    index: int
    finish_reason: str | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What every answer has, whole or a chunk of it."""

    id: str
    created: int
    model: str
    usage: Usage | None = None
    system_fingerprint: str | None = None


class ChatChoice(Choice, frozen=True, kw_only=True):
    """One of `n` answers."""

    message: AnswerMessage
    logprobs: ChatLogprobs | None = None


class ChatCompletion(Answer, frozen=True, kw_only=True):
    """A whole chat answer."""

    choices: list[ChatChoice]
    object: str = "chat.completion"


class Delta(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a chunk adds to its choice. `tool_calls` stays raw: its parts come in pieces."""

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class ChunkChoice(Choice, frozen=True, kw_only=True):
    """A chunk's part of one choice."""

    delta: Delta
    logprobs: ChatLogprobs | None = None


class ChatChunk(Answer, frozen=True, kw_only=True):
    """One chunk of a chat stream; the usage chunk has no choices."""

    choices: list[ChunkChoice]
    object: str = "chat.completion.chunk"


class CompletionLogprobs(msgspec.Struct, frozen=True, kw_only=True):
    """A text choice's tokens, in the older shape."""

    tokens: list[str] = msgspec.field(default_factory=list)
    token_logprobs: list[float | None] = msgspec.field(default_factory=list)
    top_logprobs: list[dict[str, float] | None] | None = None
    text_offset: list[int] = msgspec.field(default_factory=list)


class CompletionChoice(Choice, frozen=True, kw_only=True):
    """One text, or a chunk of it."""

    text: str
    logprobs: CompletionLogprobs | None = None


class Completion(Answer, frozen=True, kw_only=True):
    """A whole text answer, or a chunk of it: the shapes are the same."""

    choices: list[CompletionChoice]
    object: str = "text_completion"


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """One model of `GET /v1/models`. `max_model_len` is vLLM's: tokens a sequence may hold."""

    id: str
    created: int
    object: str = "model"
    owned_by: str = "skep"
    max_model_len: int | None = None


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of `GET /v1/models`."""

    data: list[ModelCard]
    object: str = "list"
