"""A stream as it came: its bytes, its events, and what they add up to for each choice."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec

from skep.errors import SkepError
from skep.testkit.check.verdict import Broken
from skep.wire.sse import SseEvent, SseParser

DONE = "[DONE]"


@dataclass
class Transcript:
    """One answer to a streaming request. `events` are those that a lenient reader dispatches."""

    request: str
    status: int
    content_type: str
    headers: dict[str, str]
    raw: bytearray = field(default_factory=bytearray)
    events: list[SseEvent] = field(default_factory=list)
    is_cut: bool = False
    _parser: SseParser = field(default_factory=SseParser)

    def feed(self, data: bytes, at_s: float) -> None:
        """Take what came."""
        self.raw += data
        self.events += self._parser.feed(data, at_s)

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """Every event that is not the end, as JSON. Raises: Broken when one is none."""
        return [self._chunk(one) for one in self.events if one.data != DONE]

    def _chunk(self, event: SseEvent) -> dict[str, Any]:
        try:
            found = msgspec.json.decode(event.data)
        except msgspec.DecodeError as error:
            raise Broken(f"an event is not JSON: {error}", self.excerpt(event.data)) from None
        if not isinstance(found, dict):
            raise Broken("an event is not a JSON object", self.excerpt(event.data))
        return found

    @property
    def pieces(self) -> list[tuple[int, dict[str, Any], dict[str, Any]]]:
        """Every choice of every chunk, in order: its index, the choice, its delta."""
        return [
            (choice.get("index", 0), choice, choice.get("delta") or {})
            for chunk in self.chunks
            for choice in chunk.get("choices") or []
        ]

    def text(self, index: int = 0) -> str:
        """Return what a choice's deltas add up to."""
        return "".join(_said(choice, delta) for at, choice, delta in self.pieces if at == index)

    @property
    def tokens_seen(self) -> int:
        """How many events carried text so far."""
        return sum(bool(_said(choice, delta)) for _, choice, delta in self.pieces)

    @property
    def finishes(self) -> Counter[int]:
        """How many finish reasons each choice has been given."""
        found = Counter({at: 0 for at, _, _ in self.pieces})
        found.update(at for at, choice, _ in self.pieces if choice.get("finish_reason"))
        return found

    @property
    def done(self) -> int:
        """How often the end was said."""
        return sum(one.data == DONE for one in self.events)

    @property
    def error(self) -> dict[str, Any] | None:
        """The in-band error, when there is one."""
        for event in self.events:
            if event.data != DONE and isinstance(found := self._chunk(event).get("error"), dict):
                return found
        return None

    @property
    def is_whole(self) -> bool:
        """True when a careful client takes it for a success: every choice finished, then one end."""
        finishes = self.finishes
        return (
            self.done == 1
            and self.events[-1].data == DONE
            and bool(finishes)
            and all(count == 1 for count in finishes.values())
        )

    def strict_violation(self) -> str:
        """Return what a strict reader of event streams finds wrong with the bytes; empty when nothing is."""
        parser = SseParser(strict=True)
        try:
            parser.feed(bytes(self.raw))
            parser.close()
        except SkepError as error:
            return str(error)
        return ""

    def excerpt(self, *lines: str) -> str:
        """Return the request, and what shows the matter."""
        return "\n".join((f"> {self.request}", *(f"< {line}" for line in lines)))

    def tail(self, count: int = 4) -> str:
        """Return the request and the last events."""
        return self.excerpt(*(f"data: {one.data}" for one in self.events[-count:]))


def _said(choice: dict[str, Any], delta: dict[str, Any]) -> str:
    """Return the text of a piece; thinking aloud counts, for some servers stream it beside the answer."""
    return str(delta.get("content") or delta.get("reasoning_content") or choice.get("text") or "")
