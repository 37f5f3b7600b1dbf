"""What happened in a simulated cluster, in order: kept to a bound, digested whole, written out on demand.

A record is (time in µs, kind, subject, detail). The digest covers every record ever made, also those that the bound
has let go, so two runs are equal to the byte exactly when their digests are.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

RECORDS_MAX: Final = 65_536
"""Records kept by default; a sink gets all of them."""

Record = tuple[int, str, str, str]
Sink = Callable[[bytes], None]


class HistoryState(msgspec.Struct, array_like=True):
    """A history as a snapshot holds it."""

    dropped: int
    digest: bytes
    records: list[Record]


def encode(record: Record) -> bytes:
    """Return a record's line of JSON."""
    at_us, kind, subject, detail = record
    line = {"t": f"{at_us // 1_000_000}.{at_us % 1_000_000:06d}", "kind": kind, "object": subject}
    if detail:
        line["detail"] = detail
    return msgspec.json.encode(line) + b"\n"


class History:
    """An append-only record. `append` is the bare list's, because it is called for every event; call `settle` often."""

    def __init__(self, records_max: int = RECORDS_MAX, sink: Sink | None = None) -> None:
        self.records: list[Record] = []
        self.append = self.records.append
        self._records_max, self._sink = records_max, sink
        self._dropped, self._digest = 0, b""

    def settle(self) -> None:
        """Let go of the older half when the bound is reached, into the digest and the sink."""
        if len(self.records) >= self._records_max:
            self._fold(self._records_max // 2)

    def _fold(self, count: int) -> None:
        lines = [encode(record) for record in self.records[:count]]
        for line in lines:
            self._digest = hashlib.sha256(self._digest + line).digest()
        if self._sink is not None:
            self._sink(b"".join(lines))
        del self.records[:count]
        self._dropped += count

    def __len__(self) -> int:
        return self._dropped + len(self.records)

    def lines(self) -> Iterator[bytes]:
        """Yield the records that are still kept, as lines of JSON."""
        return map(encode, self.records)

    def digest(self) -> str:
        """Return the hex digest of every record from the start."""
        digest = self._digest
        for record in self.records:
            digest = hashlib.sha256(digest + encode(record)).digest()
        return digest.hex()

    def close(self) -> None:
        """Hand what is left to the sink."""
        self._fold(len(self.records))

    def state(self) -> HistoryState:
        """Return a copy that shares nothing that changes."""
        return HistoryState(self._dropped, self._digest, self.records[:])

    def restore(self, state: HistoryState) -> None:
        """Take up a state; the sink has seen what was dropped before."""
        self._dropped, self._digest = state.dropped, state.digest
        self.records[:] = [tuple(record) for record in state.records]  # type: ignore[misc]
