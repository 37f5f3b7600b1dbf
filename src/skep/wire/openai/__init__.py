"""OpenAI's shapes: requests with their limits, whole responses, stream chunks.

Requests are read with `skep.wire.validate.parse`, which tells every violation and counts what this version does not
know. Fields that OpenAI has and we ignore on purpose (`user`, `metadata`, `store`, `service_tier`) are known.
"""

from skep.wire.openai.chat import ChatMessage, ChatRequest, Tool, ToolCall, ToolChoice
from skep.wire.openai.completions import CompletionRequest
from skep.wire.openai.embeddings import Embedding, EmbeddingRequest, EmbeddingResponse
from skep.wire.openai.response_format import ResponseFormat
from skep.wire.openai.responses import (
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChunkChoice,
    Completion,
    CompletionChoice,
    Delta,
    ModelCard,
    ModelList,
    Usage,
)
from skep.wire.openai.tokens import DetokenizeRequest, DetokenizeResponse, TokenizeRequest, TokenizeResponse

DONE = "[DONE]"
"""The data of the event that ends every stream; a stream that ends without it was cut."""

__all__ = [
    "DONE",
    "ChatChoice",
    "ChatChunk",
    "ChatCompletion",
    "ChatMessage",
    "ChatRequest",
    "ChunkChoice",
    "Completion",
    "CompletionChoice",
    "CompletionRequest",
    "Delta",
    "DetokenizeRequest",
    "DetokenizeResponse",
    "Embedding",
    "EmbeddingRequest",
    "EmbeddingResponse",
    "ModelCard",
    "ModelList",
    "ResponseFormat",
    "TokenizeRequest",
    "TokenizeResponse",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "Usage",
]
