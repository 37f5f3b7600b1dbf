"""The part of an answer in which a model thinks: split off, as `reasoning_content`.

Models that think write `<think>…</think>` first. Some templates write the opening mark themselves, so that the answer
begins inside. Text is held back only while it may still be part of a mark.
"""

from typing import Final, NamedTuple

OPEN: Final = "<think>"
CLOSE: Final = "</think>"


class Split(NamedTuple):
    """What some text adds to the reasoning and to the answer."""

    reasoning: str
    content: str


class ReasoningSplitter:
    """Splits a streamed answer. `begun`: the prompt ended inside the mark already."""

    def __init__(self, *, begun: bool = False) -> None:
        self._inside = begun
        self._undecided = not begun
        self._after_close = False
        self._held = ""

    def feed(self, text: str) -> Split:
        """Return what can be told now."""
        text, self._held = self._held + text, ""
        if self._undecided:
            stripped = text.lstrip()
            if OPEN.startswith(stripped[: len(OPEN)]) and len(stripped) < len(OPEN):
                self._held = text
                return Split("", "")
            self._undecided = False
            if stripped.startswith(OPEN):
                self._inside, text = True, stripped.removeprefix(OPEN)
        return self._inside_of(text) if self._inside else Split("", self._answer(text))

    def finish(self) -> Split:
        """Return what was held back; the end."""
        held, self._held = self._held, ""
        return Split(held, "") if self._inside else Split("", held)

    def _inside_of(self, text: str) -> Split:
        reasoning, mark, content = text.partition(CLOSE)
        if mark:
            self._inside, self._after_close = False, True
            return Split(reasoning, self._answer(content))
        keep = next((n for n in range(min(len(text), len(CLOSE) - 1), 0, -1) if text.endswith(CLOSE[:n])), 0)
        self._held = text[len(text) - keep :]
        return Split(text[: len(text) - keep], "")

    def _answer(self, text: str) -> str:
        """Return the answer's text without the blank lines that follow the mark."""
        if self._after_close:
            text = text.lstrip()
            self._after_close = not text
        return text


def thinks(template_source: str | None) -> bool:
    """True when a chat template knows the mark: only then is an answer split."""
    return template_source is not None and CLOSE in template_source


def is_begun(prompt_end: str) -> bool:
    """True when a rendered prompt ends inside the mark."""
    return prompt_end.rstrip().endswith(OPEN)
