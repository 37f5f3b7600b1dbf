"""Recording requests as a trace that the arena replays: when, how long, how much, and which prompts begin alike.

Prompts themselves are never written: their leading blocks are, hashed under a key that is drawn for each recording and
kept nowhere, so that equal beginnings can be told within one file and nothing can be guessed from it.
"""

import heapq
import secrets
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgspec
import structlog

from skep.errors import InvalidConfig
from skep.policy.placement import BLOCK_BYTES
from skep.queen.fields import prompt_of
from skep.queen.outcome import Outcome
from skep.queen.request import Request

log = structlog.get_logger(__name__)

BLOCKS_MAX = 64
BYTES_PER_TOKEN = 4
HELD_MAX = 20_000


class RecordedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One line; the arena's own format."""

    at_s: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    block_tokens: int = BLOCK_BYTES // BYTES_PER_TOKEN
    session: str = ""
    priority: int = 0


class Recorder:
    """Listens to the gateway and appends to a file, in order of arrival.

    A request is written once every earlier one has ended; with more than `HELD_MAX` waiting for one that runs on and
    on, they are written and that one is left out.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._key = secrets.token_bytes(16)
        self._file: BinaryIO | None = None
        self._began_s = 0.0
        self._running: dict[str, float] = {}
        self._held: list[tuple[float, int, bytes]] = []
        self._number = 0
        self._written_s = 0.0
        self.left_out = 0

    def __enter__(self) -> Self:
        """Open the file, which must not exist. Raises: InvalidConfig."""
        try:
            self._file = self._path.open("xb")
        except OSError as error:
            raise InvalidConfig(
                f"cannot record to {self._path}: {error.strerror}", path=str(self._path)
            ) from error
        self._began_s = self._clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is held, and close."""
        self._running.clear()
        self._write()
        if self._file is not None:
            self._file.close()
        if self.left_out:
            log.warning("requests_left_out", count=self.left_out, path=str(self._path))

    def started(self, request: Request) -> None:
        """A request has arrived."""
        self._running[request.request_id] = self._clock() - self._began_s

    def ended(self, request: Request, outcome: Outcome) -> None:
        """A request has ended; one that no replica took is not part of a load."""
        at_s = self._running.pop(request.request_id, None)
        if at_s is None or not outcome.replica:
            return
        if at_s < self._written_s:
            self.left_out += 1
            return
        prompt = prompt_of(request.body)
        line = RecordedRequest(
            at_s=round(at_s, 6),
            prompt_tokens=outcome.tokens_in or len(prompt) // BYTES_PER_TOKEN,
            output_tokens=outcome.tokens_out or outcome.events,
            blocks=self._blocks(prompt),
            session=f"{request.fields.session_key:x}" if request.fields.session_key else "",
            priority=request.priority,
        )
        self._number += 1
        heapq.heappush(self._held, (at_s, self._number, msgspec.json.encode(line)))
        self._write()

    def _write(self) -> None:
        earliest_s = min(self._running.values(), default=float("inf"))
        while self._held and (self._held[0][0] < earliest_s or len(self._held) > HELD_MAX):
            self._written_s, _, line = heapq.heappop(self._held)
            if self._file is not None:
                self._file.write(line + b"\n")

    def _blocks(self, prompt: bytes) -> tuple[int, ...]:
        found, chain = [], b""
        for start in range(0, min(len(prompt) // BLOCK_BYTES, BLOCKS_MAX) * BLOCK_BYTES, BLOCK_BYTES):
            block = prompt[start : start + BLOCK_BYTES]
            chain = blake2b(chain + block, digest_size=7, key=self._key).digest()
            found.append(int.from_bytes(chain, "little"))
        return tuple(found)
