"""What chat and text completions share: submitting the choices, streaming or collecting them, and the usage."""

import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from skep.errors import SkepError
from skep.errors.wire import InvalidRequest
from skep.runtime.job import Job
from skep.runtime.request import Event, Finished, GenerationRequest, Started
from skep.wire.openai.sampling import SamplingFields
from skep.worker.chunks import DONE_EVENT, Envelope, encode_json
from skep.worker.metrics import JobMeter
from skep.worker.request import Request
from skep.worker.service import Service, new_id
from skep.worker.stream import JobFailed, Writer, collect, failure_event, first_events, pump, together

JOB_ID = re.compile(r"[\x21-\x7e]{1,128}")


class Tally:
    """Tokens over all choices of one request. A prompt counts once, however many choices continue it."""

    def __init__(self) -> None:
        self._prompts: dict[int, tuple[int, int]] = {}
        self._completion_tokens = 0

    def add(self, prompt: int, end: Finished) -> None:
        """Count a choice that ended; `prompt` is the number of its prompt."""
        self._prompts.setdefault(prompt, (end.prompt_tokens, end.cached_tokens))
        self._completion_tokens += end.tokens_out

    def usage(self) -> dict[str, Any]:
        """Return the usage object."""
        prompt_tokens = sum(tokens for tokens, _ in self._prompts.values())
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": self._completion_tokens,
            "total_tokens": prompt_tokens + self._completion_tokens,
            "prompt_tokens_details": {"cached_tokens": sum(cached for _, cached in self._prompts.values())},
        }


async def submit_all(service: Service, requests: Sequence[GenerationRequest]) -> list[tuple[Job, JobMeter]]:
    """Queue every choice, or none of them. Raises: as Service.submit."""
    jobs: list[tuple[Job, JobMeter]] = []
    try:
        for request in requests:
            meter = service.meter()
            jobs.append((await service.submit(request), meter))
    except SkepError:
        for job, _ in jobs:
            job.cancel()
        raise
    return jobs


async def stream(
    request: Request,
    jobs: Sequence[tuple[Job, JobMeter]],
    writers: Sequence[Writer],
    *,
    opening: bytes,
    envelope: Envelope,
    tally: Tally,
) -> None:
    """Stream every choice, then the usage where it was asked for, then `[DONE]`; or an in-band error and no end."""
    begun = await first_events(*jobs[0])
    parts = [(job, meter, writer) for (job, meter), writer in zip(jobs, writers, strict=True)]
    try:
        await pump(request, parts, opening, begun=begun)
    except JobFailed as failure:
        failure.log(request, jobs[0][0])
        await request.write(failure_event(failure.error), last=True)
        return
    ending = envelope.usage(tally.usage()) if envelope.include_usage else b""
    await request.write(ending + DONE_EVENT, last=True)


async def collect_all(jobs: Sequence[tuple[Job, JobMeter]]) -> list[list[Event]]:
    """Return the events of every choice. Raises: the first error."""
    return await together(collect(job, meter) for job, meter in jobs)


async def answer(
    service: Service,
    request: Request,
    jobs: Sequence[tuple[Job, JobMeter]],
    route: str,
    work: Callable[[], Awaitable[None]],
) -> None:
    """Run `work` while the jobs are in hand: a client that leaves, and any error, cancels them all."""
    async with AsyncExitStack() as stack:
        stack.enter_context(service.in_hand([job for job, _ in jobs], route))
        await stack.enter_async_context(request.watched(lambda: [job.cancel() for job, _ in jobs]))
        await work()


def envelope(service: Service, fields: SamplingFields, answer_id: str, kind: str) -> Envelope:
    """Return what the chunks of a stream share."""
    return Envelope(
        id=answer_id,
        created=int(time.time()),
        model=service.served_name,
        kind=kind,
        include_usage=fields.stream_options is not None and fields.stream_options.include_usage,
    )


def whole(
    service: Service, answer_id: str, kind: str, choices: Sequence[Mapping[str, Any]], tally: Tally
) -> bytes:
    """Return a whole answer's body."""
    return encode_json({
        "id": answer_id,
        "object": kind,
        "created": int(time.time()),
        "model": service.served_name,
        "choices": choices,
        "usage": tally.usage(),
        "system_fingerprint": None,
    })  # fmt: skip


def seed_of(events: Sequence[Event]) -> int | None:
    """Return the seed that a job was started with: given, or chosen and told here."""
    return next((event.seed for event in events if isinstance(event, Started)), None)


def answer_id(request: Request, prefix: str) -> str:
    """Return the id of an answer: as a caller that wants to cancel it by id asks for, else a new one.

    Raises: InvalidRequest.
    """
    given = request.header(b"x-skep-job-id")
    if given and not JOB_ID.fullmatch(given):
        raise InvalidRequest(
            "the header x-skep-job-id must be 1 to 128 visible ASCII characters",
            violations=(("x-skep-job-id", "must be 1 to 128 visible ASCII characters"),),
        )
    return given or new_id(prefix)


def job_ids(answer_id: str, count: int) -> list[str]:
    """Return the ids of the choices' jobs: the answer's own id for one, numbered for several."""
    return [answer_id] if count == 1 else [f"{answer_id}-{index}" for index in range(count)]
