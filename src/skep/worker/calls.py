"""Tool calls in a model's text: found as it streams, and given to the client as calls.

Models write calls in a few forms, which their chat templates teach them. These are understood:

    <tool_call>{"name": …, "arguments": {…}}</tool_call>        Hermes, Qwen; several may follow each other
    {"name": …, "parameters": {…}}                              Llama 3; the whole answer, also after <|python_tag|>
    [TOOL_CALLS][{"name": …, "arguments": {…}}]                 Mistral

Text that may still become a call is held back; what turns out to be none is given out unchanged.
"""

import uuid
from typing import Any, Final

import msgspec

from skep.wire.openai import Tool, ToolCall, ToolChoice
from skep.wire.openai.chat import CalledFunction, NamedToolChoice

_OPEN: Final = "<tool_call>"
_CLOSE: Final = "</tool_call>"
_WHOLE: Final = ("<|python_tag|>", "[TOOL_CALLS]", "{", "[{")
_MARKS: Final = (_OPEN, *_WHOLE)


class CallScanner:
    """Splits a streamed answer into text to show and calls. `held` grows no longer than the answer itself."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._held = ""
        self._shown = False
        self._in_calls = False

    def feed(self, text: str) -> str:
        """Return the text that can be shown now."""
        self._held += text
        if self._in_calls:
            return ""
        start = self._held.find(_OPEN)
        if start >= 0:
            return self._begin_calls(start)
        stripped = self._held.lstrip()
        if not self._shown and (not stripped or _may_be_call(stripped)):
            self._in_calls = any(stripped.startswith(mark) for mark in _WHOLE)
            return ""
        keep = _overlap(self._held, _OPEN)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        self._shown = self._shown or bool(shown)
        return shown

    def finish(self) -> tuple[str, list[ToolCall]]:
        """Return the rest: text to show, and the calls."""
        held, self._held = self._held, ""
        calls = find_calls(held, self._names)
        return ("", calls) if calls else (held, [])

    def _begin_calls(self, start: int) -> str:
        self._in_calls = True
        if not self._held[:start].strip():
            return ""  # Blank space before calls is theirs; should they be none, it is still there.
        shown, self._held = self._held[:start], self._held[start:]
        return shown


def find_calls(text: str, names: frozenset[str]) -> list[ToolCall]:
    """Return the calls that `text` consists of; none unless all of them are well formed and name given tools."""
    body = text.strip()
    if _OPEN in body:
        parts = [part.split(_CLOSE)[0] for part in body.split(_OPEN)[1:]]
    else:
        for mark in ("<|python_tag|>", "[TOOL_CALLS]"):
            body = body.removeprefix(mark).strip()
        parts = [body]
    found: list[ToolCall] = []
    for part in parts:
        calls = _decode(part, names)
        if not calls:
            return []
        found += calls
    return found


def forced_schema(tools: list[Tool], choice: ToolChoice) -> dict[str, Any]:
    """Return the JSON schema that makes an answer one call of the tool, or tools, that must be called."""
    wanted = choice.function.name if isinstance(choice, NamedToolChoice) else None
    options = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool.function.name},
                "arguments": tool.function.parameters or {"type": "object"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
        if wanted in (None, tool.function.name)
    ]
    return options[0] if len(options) == 1 else {"anyOf": options}


def _decode(part: str, names: frozenset[str]) -> list[ToolCall]:
    try:
        raw = msgspec.json.decode(part)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return []
    calls = [_call(one, names) for one in (raw if isinstance(raw, list) else [raw])]
    found = [call for call in calls if call is not None]
    return found if len(found) == len(calls) else []


def _call(raw: Any, names: frozenset[str]) -> ToolCall | None:
    if not isinstance(raw, dict) or raw.get("name") not in names:
        return None
    arguments = raw.get("arguments", raw.get("parameters", {}))
    if not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments).decode()
    return ToolCall(
        id=f"call_{uuid.uuid4().hex[:24]}", function=CalledFunction(name=raw["name"], arguments=arguments)
    )


def _may_be_call(text: str) -> bool:
    return any(text.startswith(mark) or mark.startswith(text) for mark in _MARKS)


def _overlap(text: str, mark: str) -> int:
    """Return the length of the longest end of `text` that begins `mark`."""
    for length in range(min(len(text), len(mark) - 1), 0, -1):
        if text.endswith(mark[:length]):
            return length
    return 0
