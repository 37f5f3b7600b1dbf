"""Events of jobs on their way to one client: merged, written, and ended in exactly one way.

A write waits while the client's buffers are full. Then nothing is taken from the job, its outbox fills, and the
engine pauses that sequence alone. A client that leaves cancels its jobs. All events of one engine step that belong to
one job leave in one write.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import structlog

from skep.errors import SkepError
from skep.errors.runtime import Cancelled
from skep.runtime.job import Job
from skep.runtime.request import Event, Failed, Finished
from skep.wire.errors import error_object
from skep.worker.chunks import event_bytes
from skep.worker.metrics import JobMeter
from skep.worker.request import Request

log = structlog.get_logger(__name__)
T = TypeVar("T")

GATHER_S = 0.002
"""When two writes of a job follow each other faster than this, the next waits so long and takes what has come by then.
The first token never waits, and a model that needs longer for a token is never slowed."""


class Writer(Protocol):
    """Turns one job's events into bytes."""

    def write(self, events: Sequence[Event]) -> bytes:
        """Return the bytes of some events in order; the last may be a Finished."""
        ...


class JobFailed(Exception):
    """A job ended with an error. `error` is what to tell."""

    def __init__(self, error: SkepError) -> None:
        super().__init__(str(error))
        self.error = error

    def log(self, request: Request, job: Job) -> None:
        """Log a failure that is not the client's doing; its stream tells it in-band, and no status shows it."""
        if not isinstance(self.error, Cancelled):
            log.warning(
                "stream_failed", job_id=job.id, code=self.error.code, error=str(self.error), **request.trace()
            )


async def first_events(job: Job, meter: JobMeter) -> list[Event]:
    """Wait for a job to begin. Raises: the job's error when it ends before it began, which a status can still tell."""
    events = await job.next_events()
    meter.batch(events)
    if isinstance(events[0], Failed):
        raise events[0].error
    return events


async def collect(job: Job, meter: JobMeter) -> list[Event]:
    """Return all events of a job. Raises: the job's error."""
    found: list[Event] = []
    while events := await job.next_events():
        meter.batch(events)
        found += events
    if found and isinstance(found[-1], Failed):
        raise found[-1].error
    return found


async def pump(
    request: Request, jobs: Sequence[tuple[Job, JobMeter, Writer]], opening: bytes, *, begun: list[Event]
) -> None:
    """Write every job's stream; `begun` are the first job's first events. Returns when all have finished.

    Raises: JobFailed, when the others have been cancelled.
    """
    await request.begin_stream()
    if len(jobs) == 1:
        await _pump_one(request, *jobs[0], begun=begun, opening=opening)
        return
    if opening:
        await request.write(opening)
    lock = asyncio.Lock()
    await together(
        _pump_one(request, *one, begun=[] if index else begun, lock=lock) for index, one in enumerate(jobs)
    )


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run several at once; the first failure cancels the rest and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as failures:
        failure: BaseException = failures
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        raise failure from None
    return [task.result() for task in tasks]


async def _pump_one(
    request: Request,
    job: Job,
    meter: JobMeter,
    writer: Writer,
    *,
    begun: list[Event],
    opening: bytes = b"",
    lock: asyncio.Lock | None = None,
) -> None:
    events, clock, written_at = begun, asyncio.get_running_loop().time, 0.0
    while True:
        if events:
            last = events[-1]
            good = events[:-1] if isinstance(last, Failed) else events
            body = opening + writer.write(good)
            opening = b""
            if body and lock is None:
                await request.write(body)
            elif body and lock is not None:
                async with lock:
                    await request.write(body)
            if isinstance(last, Failed):
                raise JobFailed(last.error)
            if isinstance(last, Finished):
                return
            now = clock()
            if now - written_at < GATHER_S and not job.is_over:
                # Tokens come faster than anybody reads: let some gather. On a common beat, so that the loop takes
                # the interpreter from the engine once for all jobs.
                await asyncio.sleep(GATHER_S - now % GATHER_S)
                now = clock()
            written_at = now
        events = await job.next_events()
        meter.batch(events)


def failure_event(error: SkepError) -> bytes:
    """Return the in-band error of an OpenAI stream; no `[DONE]` follows it."""
    return event_bytes({"error": error_object(error)})
