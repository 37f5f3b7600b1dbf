"""Text out of tokens: whole UTF-8, stop strings that never leak, whatever the token borders."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.runtime.backend import LoadOptions
from skep.runtime.fake import FakeBackend, FakeScript
from skep.runtime.models import SPM, TINY
from skep.runtime.open import open_backend
from skep.runtime.text import Pieces, StopScanner, TextStream, detokenize

BYTES = Pieces(lambda token: bytes([token]))
LETTERS = st.text("abé", max_size=24)


def streamed(data: bytes, stops: tuple[str, ...] = ()) -> tuple[str, str | None, list[str]]:
    stream, shown = TextStream(BYTES, stops), []
    for token in data:
        shown.append(stream.push(token))
        if stream.matched is not None:
            break
    else:
        shown.append(stream.flush())
    return "".join(shown), stream.matched, shown


def cut_by_hand(text: str, stops: tuple[str, ...]) -> tuple[str, str | None]:
    """Read letter by letter; the first letter with which a stop string ends, ends the text before that string."""
    for end in range(1, len(text) + 1):
        matches = [stop for stop in stops if text[:end].endswith(stop)]
        if matches:
            longest = max(matches, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(st.binary(max_size=60))
def test_bytes_one_at_a_time_give_the_text_of_all_of_them(data: bytes) -> None:
    assert streamed(data)[0] == data.decode("utf-8", "replace")


@given(st.text(max_size=30))
def test_no_event_holds_half_a_character(text: str) -> None:
    _, _, shown = streamed(text.encode("utf-8", "replace"))
    assert "\ufffd" not in "".join(shown).replace("\ufffd", "", text.count("\ufffd"))
    assert all(piece == "" or piece in text for piece in shown)


@given(LETTERS, st.lists(st.text("abé", min_size=1, max_size=5), min_size=1, max_size=4).map(tuple))
def test_stop_strings_are_found_wherever_they_fall(text: str, stops: tuple[str, ...]) -> None:
    shown, matched, _ = streamed(text.encode(), stops)
    assert (shown, matched) == cut_by_hand(text, stops)


@given(LETTERS, st.lists(st.text("abé", min_size=1, max_size=5), min_size=1, max_size=4), st.data())
def test_the_result_does_not_depend_on_where_the_text_is_cut(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    scanner, shown, at = StopScanner(stops), "", 0
    while at < len(text):
        size = data.draw(st.integers(1, len(text) - at))
        part = scanner.feed(text[at : at + size])
        shown, at = shown + part.shown, at + size
        if part.matched is not None:
            break
    else:
        shown += scanner.held
    assert shown == cut_by_hand(text, tuple(stops))[0]


def test_what_may_become_a_stop_string_is_held_and_no_more() -> None:
    scanner = StopScanner(["</end>", "STOP"])
    assert scanner.feed("text</e") == ("text", None)
    assert scanner.feed("xS") == ("</ex", None)
    assert scanner.feed("TOP!") == ("", "STOP")


def test_a_piece_is_looked_up_once() -> None:
    asked: list[int] = []

    def piece(token: int) -> bytes:
        asked.append(token)
        return b"x"

    stream = TextStream(Pieces(piece))
    assert "".join(stream.push(7) for _ in range(5)) == "xxxxx"
    assert asked == [7]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(TINY, marks=pytest.mark.llama),
        pytest.param(SPM, marks=pytest.mark.llama),
        Path("fake:x?vocab=300"),
    ],
    ids=["byte-level BPE", "SentencePiece", "fake words"],
)
def test_detokenising_a_text_s_tokens_gives_the_text(path: Path) -> None:
    backend = FakeBackend() if str(path).startswith("fake:") else open_backend("llama")
    model = backend.load(path, LoadOptions())

    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
    def round_trip(text: str) -> None:
        assert detokenize(model, model.tokenize(text, add_special=False)) == text

    round_trip()
    assert detokenize(model, model.tokenize(" bee  hive", add_special=False)) == " bee  hive"
    model.close()


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    model = FakeBackend(FakeScript()).load(Path("fake:x"), LoadOptions())
    assert detokenize(model, [0xFF, ord("a"), 0xC3]) == "\ufffda\ufffd"
    model.close()
