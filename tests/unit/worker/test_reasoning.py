"""Reasoning is split off however the text is cut; an answer without it passes at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.worker.reasoning import ReasoningSplitter, is_begun, thinks


def split(parts, *, begun=False):
    splitter = ReasoningSplitter(begun=begun)
    told = [*(splitter.feed(part) for part in parts), splitter.finish()]
    return "".join(one.reasoning for one in told), "".join(one.content for one in told)


@pytest.mark.parametrize(
    ("text", "begun", "reasoning", "content"),
    [
        ("<think>hm</think>\n\nyes", False, "hm", "yes"),
        ("\n<think>a<b</think>c", False, "a<b", "c"),
        ("hm</think>yes", True, "hm", "yes"),
        ("never ends", True, "never ends", ""),
        ("<think>never ends </thi", False, "never ends </thi", ""),
        ("plain", False, "", "plain"),
        ("<thin", False, "", "<thin"),
        ("a <think>b</think>", False, "", "a <think>b</think>"),
        ("", False, "", ""),
        ("<think></think>", False, "", ""),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_splitting(text, begun, reasoning, content, size):
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    assert split(parts, begun=begun) == (reasoning, content)


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<", "/think>", "a", " ", "\n"]), max_size=12),
    st.booleans(),
)
def test_any_slicing_gives_the_same(parts, begun):
    text = "".join(parts)
    assert split(parts, begun=begun) == split([text], begun=begun) == split(list(text), begun=begun)


def test_an_answer_without_reasoning_is_not_held_back():
    assert ReasoningSplitter().feed("hello").content == "hello"


def test_templates_that_think():
    assert thinks("…{{ '</think>' }}…")
    assert not thinks("plain")
    assert not thinks(None)
    assert is_begun("<|im_start|>assistant\n<think>\n")
