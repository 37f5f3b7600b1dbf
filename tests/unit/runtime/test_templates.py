"""Chat templates: what they render, and what a hostile one cannot do."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from skep.errors.runtime import InvalidTemplate, UnsupportedContent
from skep.runtime.backend import LoadOptions
from skep.runtime.fake import FakeBackend
from skep.runtime.fake.vocabulary import TURN_START
from skep.runtime.templates import DEFAULT_TEMPLATE, ChatTemplate, encode_prompt, normalise, template_of

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def render(source: str, messages: list[dict[str, Any]] | None = None, **given: Any) -> str:
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>").render(messages or HELLO, **given)


def test_the_default_template_is_chatml() -> None:
    template = ChatTemplate(None)
    assert template.is_default
    text = template.render([{"role": "system", "content": "Be kind."}, *HELLO])
    assert text == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    )
    assert template.render(HELLO, add_generation_prompt=False).endswith("hello<|im_end|>\n")


def test_the_default_template_shows_tools_and_calls() -> None:
    called = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Graz"}'}}]}  # fmt: skip
    answered = {"role": "tool", "tool_call_id": "1", "content": "sunny"}
    text = ChatTemplate(None).render([*HELLO, called, answered], tools=[TOOL])
    assert '"name": "weather"' in text.split("<|im_start|>user")[0]
    assert '<tool_call>{"name": "weather", "arguments": {"city": "Graz"}}</tool_call>' in text
    assert "<|im_start|>tool\nsunny<|im_end|>" in text


def test_a_template_of_hugging_face_s_dialect_renders() -> None:
    source = (
        "{{ bos_token }}{% for m in messages %}{% if loop.first %}{{ loop.length }}:{% endif %}"
        "{% if m.role == 'tool' %}{% continue %}{% endif %}"
        "{% generation %}{{ m['content'] | trim }}{% endgeneration %}{{ eos_token }}{% endfor %}"
        "{{ {'é': 1} | tojson }}{% if enable_thinking is defined and not enable_thinking %}<no>{% endif %}"
    )
    messages = [*HELLO, {"role": "tool", "content": "x"}]
    assert render(source, messages, variables={"enable_thinking": False}) == '<s>2:hello</s>{"é": 1}<no>'


def test_the_clock_of_a_template_is_injected() -> None:
    template = ChatTemplate("{{ strftime_now('%d %b %Y') }}", now=lambda: datetime(2026, 11, 20, tzinfo=UTC))
    assert template.render(HELLO) == "20 Nov 2026"


def test_a_template_may_refuse_and_says_why() -> None:
    with pytest.raises(InvalidTemplate, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")


def test_variables_cannot_replace_the_messages() -> None:
    assert render("{{ messages[0].content }}", variables={"messages": [], "bos_token": ""}) == "hello"


def test_tools_for_a_template_that_takes_none_are_refused() -> None:
    with pytest.raises(InvalidTemplate, match="no tools"):
        render("{{ messages[0].content }}", tools=[TOOL])
    assert ChatTemplate(DEFAULT_TEMPLATE).takes_tools


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(100001) %}{% endfor %}",
        "{{ 'a' * 10**9 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{% for i in range(90000) %}" + "x" * 100 + "{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ messages[0].no.such }}",
        "{{ 1 // 0 }}",
        "{{ messages | nosuchfilter }}",
        "{% include 'other' %}",
        "{% if %}",
        "x" * 300_000,
    ],
    ids=lambda source: source[:40],
)
def test_what_is_hostile_or_broken_is_a_typed_error(source: str) -> None:
    with pytest.raises(InvalidTemplate):
        render(source)


def test_parts_of_text_are_joined_and_others_are_refused() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert normalise({"role": "user", "content": parts}) == {"role": "user", "content": "ab"}
    for part in ({"type": "image_url", "image_url": {}}, {"type": "input_audio"}, "bare"):
        with pytest.raises(UnsupportedContent):
            normalise({"role": "user", "content": [part]})


def test_arguments_that_are_no_json_stay_as_they_are() -> None:
    call = {"function": {"name": "f", "arguments": '{"half'}}
    message = normalise({"role": "assistant", "tool_calls": [call]})
    assert message["tool_calls"][0]["function"]["arguments"] == '{"half'
    assert message["content"] == ""


def test_a_rendered_prompt_is_read_with_its_control_tokens_and_one_beginning() -> None:
    model = FakeBackend().load(Path("fake:x"), LoadOptions())
    template = template_of(model)
    tokens = encode_prompt(model, template.render(HELLO))
    assert tokens[0] == TURN_START
    assert tokens.count(TURN_START) == 2
    assert not template.is_default
    assert template_of(model, source="{{ bos_token }}!").render(HELLO) == "<|bos|>!"
    model.close()
