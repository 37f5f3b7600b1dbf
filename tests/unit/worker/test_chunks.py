"""Chunks that are formatted ahead are the same JSON as if they had been encoded whole."""

import json

from hypothesis import given
from hypothesis import strategies as st

from skep.runtime.request import Token, TokenLogprob
from skep.wire.openai import ChatChunk, Completion
from skep.wire.sse import parse_all
from skep.worker.chunks import ChatChunks, Envelope, TextChunks, chat_logprobs, text_logprobs, text_of_piece

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def envelope(*, kind="chat.completion.chunk", include_usage=False):
    return Envelope(id="id-1", created=7, model='m"x', kind=kind, include_usage=include_usage)


def only(body):
    [event] = parse_all([body], strict=True)
    return event.data


@given(text, st.integers(0, 15), st.booleans())
def test_chat_chunks_hold_any_text(content, index, include_usage):
    import msgspec

    data = only(ChatChunks(envelope(include_usage=include_usage), index).text(content))
    chunk = msgspec.json.decode(data, type=ChatChunk)
    assert (chunk.choices[0].delta.content, chunk.choices[0].index, chunk.model) == (content, index, 'm"x')
    assert ("usage" in json.loads(data)) == include_usage


@given(text)
def test_text_chunks_hold_any_text(content):
    import msgspec

    data = only(TextChunks(envelope(kind="text_completion"), 0).text(content))
    assert msgspec.json.decode(data, type=Completion).choices[0].text == content


def test_the_order_of_a_choice():
    chunks = ChatChunks(envelope(), 2)
    opening, finish = json.loads(only(chunks.opening())), json.loads(only(chunks.finish("stop", 9)))
    assert opening["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert finish["choices"][0] == {
        "index": 2,
        "delta": {},
        "logprobs": None,
        "finish_reason": "stop",
        "seed": 9,
    }


def test_the_usage_chunk_has_no_choices():
    found = json.loads(only(envelope(include_usage=True).usage({"total_tokens": 3})))
    assert (found["choices"], found["usage"]) == ([], {"total_tokens": 3})


LOGPROB = TokenLogprob(5, b"\xe2\x82", -0.5)
TOKEN = Token(text="", index=0, logprob=LOGPROB, top=(LOGPROB, TokenLogprob(6, b"a", -1.0)))


def test_chat_logprobs_keep_the_bytes_of_half_characters():
    [entry] = chat_logprobs([TOKEN], text_of_piece)["content"]
    assert (entry["token"], entry["bytes"], entry["logprob"]) == ("\ufffd", [0xE2, 0x82], -0.5)
    assert [one["token"] for one in entry["top_logprobs"]] == ["\ufffd", "a"]


def test_text_logprobs_count_offsets():
    tokens = [
        Token(text=one, index=i, logprob=TokenLogprob(i, one.encode(), -1.0))
        for i, one in enumerate(["ab", "c"])
    ]
    found = text_logprobs(tokens, text_of_piece, 10, top=0)
    assert found == {
        "tokens": ["ab", "c"],
        "token_logprobs": [-1.0, -1.0],
        "text_offset": [10, 12],
        "top_logprobs": None,
    }
