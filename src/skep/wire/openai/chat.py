"""`POST /v1/chat/completions`: the request."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from skep.wire.openai.response_format import FunctionName
from skep.wire.openai.sampling import ModelName, SamplingFields, TokenCount

MESSAGES_MAX = 2048
TOOLS_MAX = 128
TOP_LOGPROBS_MAX = 20


class TextPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a message. Only text: images, audio and files are out for now."""

    type: Literal["text"]
    text: str


class CalledFunction(msgspec.Struct, frozen=True, kw_only=True):
    """A call that a model made: `arguments` is JSON text."""

    name: str
    arguments: str = "{}"


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a tool."""

    id: str
    function: CalledFunction
    type: Literal["function"] = "function"


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], Meta(max_length=TOOLS_MAX)] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None

    @property
    def text(self) -> str:
        """Return the content as one string."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class Function(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that the model may use."""

    function: Function
    type: Literal["function"]


class NamedFunction(msgspec.Struct, frozen=True, kw_only=True):
    """The function that must be called."""

    name: FunctionName


class NamedToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The one tool that must be called."""

    function: NamedFunction
    type: Literal["function"] = "function"


ToolChoice = Literal["none", "auto", "required"] | NamedToolChoice


class ChatRequest(SamplingFields, frozen=True, kw_only=True):
    """The body of a chat completion."""

    model: ModelName
    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=MESSAGES_MAX)]
    max_completion_tokens: TokenCount | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=TOP_LOGPROBS_MAX)] | None = None
    tools: Annotated[list[Tool], Meta(max_length=TOOLS_MAX)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def violations(self) -> dict[str, str]:
        """Return what is wrong over several fields."""
        found = self.shared_violations()
        if self.top_logprobs is not None and not self.logprobs:
            found["top_logprobs"] = "is only allowed when logprobs is true"
        found.update(self._tool_violations())
        for index, message in enumerate(self.messages):
            if message.role == "tool" and not message.tool_call_id:
                found[f"messages[{index}].tool_call_id"] = "is required for the role tool"
            if message.content is None and not message.tool_calls and message.role != "assistant":
                found[f"messages[{index}].content"] = "is required for this role"
        return found

    def _tool_violations(self) -> dict[str, str]:
        names = {tool.function.name for tool in self.tools or ()}
        if self.tool_choice is None or self.tool_choice == "none":
            return {}
        if not names:
            return (
                {"tool_choice": "is only allowed when tools are given"} if self.tool_choice != "auto" else {}
            )
        if isinstance(self.tool_choice, NamedToolChoice) and self.tool_choice.function.name not in names:
            return {"tool_choice.function.name": "is not one of the tools"}
        return {}

    @property
    def tokens_max(self) -> int | None:
        """Return how many tokens may be generated; the newer field wins."""
        return self.max_completion_tokens or self.max_tokens
