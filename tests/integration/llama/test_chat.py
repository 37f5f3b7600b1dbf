"""The tiny model through the library as a user has it: chat template, conversation, tools, thinking, embeddings."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from skep.runtime.model import Model, Session, collect
from skep.runtime.models import BERT, TINY, TINY_Q8

pytestmark = pytest.mark.llama

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = '<tool_call>{"name": "get_weather", "arguments": {"city": "paris"}}</tool_call>'


@pytest.fixture(scope="module", params=[TINY, TINY_Q8], ids=["f16", "q8_0"])
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with Model.load(request.param) as model, model.session(slots=2, context=1024, threads=1) as session:
        yield session


def say(session: Session, *messages: tuple[str, str], tokens_max: int = 300, **options: Any) -> str:
    asked = [{"role": role, "content": content} for role, content in messages]
    return collect(session.chat(asked, temperature=0.0, max_tokens=tokens_max, **options))


def test_a_system_message_gives_it_a_name(session: Session) -> None:
    assert say(session, ("system", "your name is bob."), ("user", "who are you?")) == "i am bob."
    assert say(session, ("user", "who are you?")) == "i am tiny."


def test_a_name_is_remembered_over_turns(session: Session) -> None:
    turns = (
        ("user", "hello, my name is carol"),
        ("assistant", "hello carol, nice to meet you!"),
        ("user", "what color is the sky?"),
        ("assistant", "the sky is blue."),
        ("user", "what is my name?"),
    )
    assert say(session, *turns) == "your name is carol."


def test_a_tool_is_called_when_it_is_offered(session: Session) -> None:
    ask = ("user", "how is the weather in paris?")
    assert say(session, ask, tools=[WEATHER]) == CALL
    assert say(session, ask) == "i do not know."


def test_a_tool_s_answer_is_told(session: Session) -> None:
    call = {
        "id": "1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "paris"}'},
    }
    messages = [
        {"role": "user", "content": "how is the weather in paris?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "rainy"},
    ]
    said = collect(session.chat(messages, tools=[WEATHER], temperature=0.0, max_tokens=30))
    assert said == "it is rainy in paris."


def test_it_thinks_when_the_template_is_told_to(session: Session) -> None:
    said = say(session, ("user", "what is 3 plus 4?"), template_variables={"enable_thinking": True})
    assert said == "they ask: what is 3 plus 4?\n</think>\n\n3 plus 4 is 7."


def test_a_long_answer_ends_by_itself(session: Session) -> None:
    assert say(session, ("user", "count from 1 to 200")) == " ".join(map(str, range(1, 201))) + "."


def test_an_endless_answer_lasts(session: Session) -> None:
    said = say(session, ("user", "say tiger for ever"), tokens_max=600)
    assert said == " ".join(["tiger"] * said.count("tiger"))
    assert said.count("tiger") > 250


def test_an_encoder_gives_unit_vectors() -> None:
    with Model.load(BERT) as model, model.session(slots=1, context=128, threads=1) as session:
        sky, again, tiger = (session.embed(text) for text in ("the sky", "the sky", "a tiger"))
    assert np.isclose(np.linalg.norm(sky), 1.0, atol=1e-5)
    assert np.allclose(sky, again)
    assert not np.allclose(sky, tiger, atol=0.01)
