"""What a faulty path does to the bytes of one direction of one connection. Pure: bytes in, actions out."""

import random
import re
from dataclasses import dataclass
from typing import Final

from skep.errors import InvalidInput

KINDS: Final = {
    "refuse": "close the connection before a byte was passed on",
    "reset-at": "send RST after N bytes of the answer",
    "cut-at": "end the answer cleanly after N bytes",
    "stall-at": "pass nothing on after N bytes of the answer, and keep the connection",
    "delay-ms": "hold every chunk back by N milliseconds",
    "bandwidth": "pass on N bytes a second",
    "chop": "pass bytes on N at a time",
    "partition": "pass nothing on in either direction",
}
CHUNK_MAX = 16_384
_TEXT = re.compile(r"(?P<kind>[a-z-]+)(?:=(?P<low>\d+)(?:\.\.(?P<high>\d+))?)?")
_NEEDS_NO_NUMBER = {"refuse", "partition"}


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong. `low..high` is the range of its number; a connection draws from it by its seed."""

    kind: str
    low: int = 0
    high: int = 0

    def drawn(self, seed: int) -> "Fault":
        """The same with one number."""
        number = random.Random(f"{seed} {self.kind}").randint(self.low, self.high)  # noqa: S311 - replayable
        return Fault(self.kind, number, number)

    @property
    def number(self) -> int:
        """Its number, once it was drawn."""
        return self.low

    def __str__(self) -> str:
        if self.kind in _NEEDS_NO_NUMBER:
            return self.kind
        return f"{self.kind}={self.low}" + (f"..{self.high}" if self.high != self.low else "")


def parse_fault(text: str) -> Fault:
    """Read `cut-at=100`, `delay-ms=5..50` or `refuse`. Raises: InvalidInput that lists the kinds."""
    match = _TEXT.fullmatch(text)
    if match is None or match["kind"] not in KINDS:
        raise InvalidInput(f"{text!r} is no fault; there are: {', '.join(KINDS)}", fault=text)
    if match["low"] is None and match["kind"] not in _NEEDS_NO_NUMBER:
        raise InvalidInput(
            f"{match['kind']} needs a number: {match['kind']}=100, or a range: {match['kind']}=1..100"
        )
    low = int(match["low"] or 0)
    high = int(match["high"] or low)
    if high < low or (match["kind"] in {"bandwidth", "chop"} and low < 1):
        raise InvalidInput(f"{text!r} has an impossible number", fault=text)
    return Fault(match["kind"], low, high)


@dataclass(frozen=True)
class Send:
    """Pass these bytes on, after a pause."""

    data: bytes
    after_s: float = 0.0


@dataclass(frozen=True)
class End:
    """Stop here: `reset`, `close`, or `stall` (say nothing more and stay)."""

    how: str


class Path:
    """One direction of one connection under some faults."""

    def __init__(self, faults: list[Fault]) -> None:
        self._faults = {fault.kind: fault.number for fault in faults}
        self._passed = 0

    def feed(self, data: bytes) -> list[Send | End]:
        """Take what came; return what to do with it, in order. After an `End` feed no more."""
        if "partition" in self._faults:
            return [End("stall")]
        ends = {
            kind: self._faults[f"{kind}-at"] - self._passed
            for kind in ("reset", "cut", "stall")
            if f"{kind}-at" in self._faults
        }
        first = min(ends, key=lambda kind: ends[kind], default=None)
        room = ends[first] if first else len(data)
        found: list[Send | End] = list(self._pieces(data[:room]))
        self._passed += min(len(data), room)
        if first and len(data) >= room:
            found.append(End({"reset": "reset", "cut": "close", "stall": "stall"}[first]))
        return found

    def _pieces(self, data: bytes) -> list[Send]:
        size = self._faults.get("chop", CHUNK_MAX)
        rate = self._faults.get("bandwidth", 0)
        delay_s = self._faults.get("delay-ms", 0) / 1000
        if rate:
            size = min(size, max(1, rate // 20))
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        return [Send(piece, delay_s + (len(piece) / rate if rate else 0.0)) for piece in pieces]
