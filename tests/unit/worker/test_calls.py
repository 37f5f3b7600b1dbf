"""Tool calls are found however the text is cut; what is none is shown unchanged."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.wire.openai import Tool
from skep.wire.openai.chat import Function, NamedFunction, NamedToolChoice
from skep.worker.calls import CallScanner, forced_schema

NAMES = frozenset({"weather", "time"})
CALL = '{"name": "weather", "arguments": {"city": "Bee"}}'


def scan(parts):
    scanner = CallScanner(NAMES)
    shown = "".join(scanner.feed(part) for part in parts)
    rest, calls = scanner.finish()
    return shown + rest, [(call.function.name, json.loads(call.function.arguments)) for call in calls]


ONE = [("weather", {"city": "Bee"})]


@pytest.mark.parametrize(
    ("text", "shown", "calls"),
    [
        (CALL, "", ONE),
        (f"<tool_call>{CALL}</tool_call>", "", ONE),
        (f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>{CALL}</tool_call>", "", ONE * 2),
        (f"Let me look.\n<tool_call>{CALL}</tool_call>", "Let me look.\n", ONE),
        (f"[TOOL_CALLS][{CALL}]", "", ONE),
        (f"[{CALL}]", "", ONE),
        ("<|python_tag|>" + CALL.replace("arguments", "parameters"), "", ONE),
        ('{"name": "weather", "arguments": "{\\"city\\": \\"Bee\\"}"}', "", ONE),
        ('{"name": "unknown", "arguments": {}}', '{"name": "unknown", "arguments": {}}', []),
        ('{"answer": 3}', '{"answer": 3}', []),
        ("<tool_call>not json</tool_call>", "<tool_call>not json</tool_call>", []),
        ("plain text with < and <tool", "plain text with < and <tool", []),
        ("", "", []),
        ("  hello", "  hello", []),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_forms(text, shown, calls, size):
    assert scan([text[at : at + size] for at in range(0, len(text), size)]) == (shown, calls)


@given(
    st.lists(
        st.sampled_from(["<", "tool_call", ">", "{", "}", "a", " ", "[TOOL", "_CALLS]", "<tool_call>"]),
        max_size=20,
    )
)
def test_text_without_calls_comes_through_whole(parts):
    assert scan(parts) == ("".join(parts), [])


def test_plain_text_is_not_held_back():
    scanner = CallScanner(NAMES)
    assert scanner.feed("hello ") == "hello "
    assert scanner.feed("there") == "there"


def tool(name):
    return Tool(
        type="function", function=Function(name=name, parameters={"type": "object", "properties": {}})
    )


def test_a_forced_call_has_a_schema_of_the_tool_or_of_any():
    tools = [tool("weather"), tool("time")]
    assert len(forced_schema(tools, "required")["anyOf"]) == 2
    one = forced_schema(tools, NamedToolChoice(function=NamedFunction(name="time")))
    assert one["properties"]["name"] == {"const": "time"}
