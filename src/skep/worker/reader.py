"""What an answer's text consists of, as it streams: reasoning, tool calls, and what is left to show."""

from skep.wire.openai import ToolCall
from skep.worker.calls import CallScanner
from skep.worker.reasoning import ReasoningSplitter, Split


class AnswerReader:
    """Reads one answer; without a splitter or a scanner that part passes through."""

    def __init__(self, splitter: ReasoningSplitter | None, scanner: CallScanner | None) -> None:
        self._splitter, self._scanner = splitter, scanner

    def feed(self, text: str) -> Split:
        """Return what some text adds."""
        split = Split("", text) if self._splitter is None else self._splitter.feed(text)
        return split if self._scanner is None else Split(split.reasoning, self._scanner.feed(split.content))

    def finish(self) -> tuple[Split, list[ToolCall]]:
        """Return what was held back, and the calls."""
        split = Split("", "") if self._splitter is None else self._splitter.finish()
        if self._scanner is None:
            return split, []
        shown = self._scanner.feed(split.content)
        rest, calls = self._scanner.finish()
        return Split(split.reasoning, shown + rest), calls
