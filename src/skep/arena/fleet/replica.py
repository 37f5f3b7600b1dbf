"""One simulated worker: slots, prompts read in chunks between decode steps, and a cache of prompt prefixes.

Between two changes (a prompt read, a sequence ended, an arrival) rates are constant, so time jumps from change to
change: a token clock runs at one token per step for all sequences, and each ends at its own reading of that clock.
"""

import heapq
from collections import OrderedDict, deque
from enum import IntEnum
from typing import Final

from skep.arena.fleet.model import WorkerModel
from skep.arena.fleet.requests import TracedRequest

NEVER: Final = float("inf")


class _Change(IntEnum):
    NOTHING = 0
    ENDED = 1
    LAST_CHUNK = 2
    READ = 3


class Job:
    """A request on a replica, and what became of it; times are -1 until they are known."""

    __slots__ = (
        "attempts",
        "dispatched_s",
        "done_s",
        "first_s",
        "hit_tokens",
        "lag_s",
        "number",
        "prompt_left",
        "request",
    )

    def __init__(self, number: int, request: TracedRequest) -> None:
        self.number, self.request = number, request
        self.dispatched_s = self.first_s = self.done_s = -1.0
        self.prompt_left = self.lag_s = 0.0
        self.hit_tokens = 0
        self.attempts = 0


class PrefixCache:
    """Blocks of past prompts, the least recently used of them go first."""

    def __init__(self, tokens_max: int) -> None:
        self._tokens_max, self._tokens = tokens_max, 0
        self._blocks: OrderedDict[int, int] = OrderedDict()

    def hit_tokens(self, request: TracedRequest) -> int:
        """Return how many leading tokens of a prompt are at hand."""
        hits = 0
        for block in request.blocks:
            if block not in self._blocks:
                break
            self._blocks.move_to_end(block)
            hits += 1
        return min(hits * request.block_tokens, max(request.prompt_tokens - 1, 0))

    def keep(self, request: TracedRequest) -> None:
        """Keep a prompt's blocks."""
        for block in request.blocks:
            if block in self._blocks:
                self._blocks.move_to_end(block)
            else:
                self._blocks[block] = request.block_tokens
                self._tokens += request.block_tokens
        while self._tokens > self._tokens_max:
            self._tokens -= self._blocks.popitem(last=False)[1]


class Replica:
    """A worker at work. `advance` to a time, then ask for `next_s`."""

    def __init__(self, replica_id: str, model: WorkerModel) -> None:
        self.replica_id, self.model = replica_id, model
        self.cache = PrefixCache(model.cache_tokens)
        self.now_s = 0.0
        self.version = 0
        self.busy_slot_s = 0.0
        self.up = True
        self._tokens = 0.0
        self._decoding: list[tuple[float, int, Job]] = []
        self._prompts: deque[Job] = deque()
        self._waiting: deque[Job] = deque()

    @property
    def busy(self) -> int:
        """Return how many requests run or wait here."""
        return len(self._decoding) + len(self._prompts) + len(self._waiting)

    def add(self, job: Job) -> None:
        """Take a request in, now."""
        self._waiting.append(job)
        self._fill()
        self.version += 1

    def _fill(self) -> None:
        while self._waiting and len(self._decoding) + len(self._prompts) < self.model.slots:
            job = self._waiting.popleft()
            job.hit_tokens = self.cache.hit_tokens(job.request)
            job.prompt_left = float(max(job.request.prompt_tokens - job.hit_tokens, 1))
            # Who arrives in the middle of a step waits for its end: half a step in the mean.
            job.lag_s = self.model.decode_step_s(len(self._decoding)) / 2 if self._decoding else 0.0
            self._prompts.append(job)

    def _rates(self) -> tuple[float, float]:
        """Return (decode tokens per second and sequence, prompt tokens per second)."""
        model, sequences = self.model, len(self._decoding)
        if not self._prompts:
            return (1 / model.decode_step_s(sequences) if sequences else 0.0), 0.0
        left = self._prompts[0].prompt_left
        chunk = min(model.chunk_tokens, max(left, 1.0))
        step_s = model.step_s + model.sequence_s * sequences + model.prompt_token_s * chunk
        return (1 / step_s if sequences else 0.0), chunk / step_s

    def _next(self) -> tuple[float, _Change]:
        """Return in how many seconds what changes next."""
        decode, prompt = self._rates()
        soonest, change = NEVER, _Change.NOTHING
        if self._decoding:
            soonest, change = max(self._decoding[0][0] - self._tokens, 0.0) / decode, _Change.ENDED
        if self._prompts:
            left, chunk = self._prompts[0].prompt_left, self.model.chunk_tokens
            is_last = left <= chunk
            read_s = (left if is_last else left - chunk) / prompt
            if read_s < soonest:
                soonest, change = read_s, _Change.READ if is_last else _Change.LAST_CHUNK
        return soonest, change

    def next_s(self) -> float:
        """Return when something next changes here."""
        return self.now_s + self._next()[0]

    def advance(self, to_s: float) -> list[Job]:
        """Let time pass; return the requests that ended, in order."""
        ended: list[Job] = []
        while True:
            wait_s, change = self._next()
            if self.now_s + wait_s > to_s:
                self._pass(max(to_s - self.now_s, 0.0))
                self.now_s = max(to_s, self.now_s)
                return ended
            self._pass(wait_s)
            self.now_s += wait_s
            self._apply(change, ended)

    def _pass(self, seconds: float) -> None:
        decode, prompt = self._rates()
        self.busy_slot_s += seconds * (len(self._decoding) + len(self._prompts))
        self._tokens += seconds * decode
        if self._prompts:
            self._prompts[0].prompt_left -= seconds * prompt

    def _apply(self, change: _Change, ended: list[Job]) -> None:
        """Do what came due: exactly, whatever rounding left over."""
        if change is _Change.ENDED:
            end, _, job = heapq.heappop(self._decoding)
            self._tokens = max(self._tokens, end)
            job.done_s = self.now_s + self.model.overhead_s + job.lag_s
            ended.append(job)
            if not self._decoding:
                self._tokens = 0.0
        elif change is _Change.LAST_CHUNK:
            self._prompts[0].prompt_left = float(self.model.chunk_tokens)
        else:
            job = self._prompts.popleft()
            self.cache.keep(job.request)
            job.first_s = self.now_s + self.model.overhead_s + job.lag_s
            if job.request.output_tokens > 1:
                heapq.heappush(
                    self._decoding, (self._tokens + job.request.output_tokens - 1, job.number, job)
                )
            else:
                job.done_s = job.first_s
                ended.append(job)
        self._fill()

    def crash(self) -> list[Job]:
        """Lose everything; return the requests that were here."""
        lost = [*(entry[2] for entry in sorted(self._decoding)), *self._prompts, *self._waiting]
        self._decoding, self._prompts, self._waiting = [], deque(), deque()
        self.cache = PrefixCache(self.model.cache_tokens)
        self.up = False
        self.version += 1
        return lost
