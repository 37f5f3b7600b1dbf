"""A job: one request on one engine, and the reader's end of it."""

from collections.abc import Callable, Iterator
from typing import Self

from skep.lifecycle.job import JOB, JobEvent, JobState, advance
from skep.runtime.constraint import Matcher
from skep.runtime.outbox import Outbox
from skep.runtime.request import EmbeddingRequest, Event, GenerationRequest
from skep.runtime.sampling import SamplingParams


class Job:
    """An asynchronous and a blocking iterator of events, for one reader.

    It ends after exactly one terminal event. Leaving it as a context manager cancels what still runs. `state` is
    written by the engine's thread alone. `sampling` has its seed.
    """

    def __init__(
        self,
        request: GenerationRequest | EmbeddingRequest,
        *,
        sampling: SamplingParams,
        max_tokens: int,
        now: float,
        matcher: Matcher | None,
        outbox: Outbox,
        cancel: Callable[[str], bool],
    ) -> None:
        self.request = request
        self.id = request.job_id
        self.sampling = sampling
        self.max_tokens = max_tokens
        self.matcher = matcher
        self.outbox = outbox
        self.state: JobState = JOB.initial
        self.submitted_at = now
        self.deadline_at = now + request.deadline_s
        self.paused_at = 0.0
        self.tokens_out = 0
        self.cached_tokens = 0
        self._cancel = cancel

    @property
    def seed(self) -> int:
        """The seed asked for, or the one that the engine picked."""
        return self.sampling.seed or 0

    @property
    def generation(self) -> GenerationRequest:
        """The request, which must not be one for an embedding."""
        assert isinstance(self.request, GenerationRequest)
        return self.request

    @property
    def is_over(self) -> bool:
        """True when its terminal event was put."""
        return self.state in JOB.terminal

    def advance(self, event: JobEvent) -> None:
        """Follow the job's life cycle. Raises: IllegalTransition."""
        self.state = advance(self.state, event)

    def cancel(self) -> bool:
        """Ask for its end; False when it was over. Safe from any thread."""
        return self._cancel(self.id)

    async def next_events(self) -> list[Event]:
        """Return all events that wait, at least one; an empty list after the terminal one."""
        await self.outbox.wait()
        return self.outbox.take()

    def next_events_blocking(self) -> list[Event]:
        """As `next_events`, in a thread without an event loop."""
        self.outbox.wait_blocking()
        return self.outbox.take()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        await self.outbox.wait()
        if self.outbox.is_read_out:
            raise StopAsyncIteration
        return self.outbox.take_one()

    def __iter__(self) -> Iterator[Event]:
        try:
            while True:
                self.outbox.wait_blocking()
                if self.outbox.is_read_out:
                    return
                yield self.outbox.take_one()
        finally:
            self.cancel()  # The loop over it was left early.

    async def aclose(self) -> None:
        """Cancel what still runs."""
        self.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self.cancel()
