"""The batching engine: one owner thread beside the caller's event loop.

`submit` and `cancel` are safe from any thread. Commands reach the thread through an inbox between two steps; events
come back through each job's outbox, with one wake-up a step for all jobs of a loop.
"""

import asyncio
import concurrent.futures
import logging
import os
import secrets
from collections.abc import Callable
from time import monotonic
from typing import Self

import msgspec

from skep.errors import InvalidInput, SkepError
from skep.errors.runtime import (
    Cancelled,
    Closed,
    Draining,
    DuplicateJob,
    EngineFault,
    QueueFull,
)
from skep.runtime import sampling
from skep.runtime.backend import BackendModel, MemoryUse
from skep.runtime.constraint import Compiler, Matcher
from skep.runtime.driver import CLOSE_S_MAX, Driver
from skep.runtime.intake import check_prompt, check_request
from skep.runtime.integrity import violations
from skep.runtime.job import Job
from skep.runtime.options import EngineOptions, check_options
from skep.runtime.outbox import Outbox
from skep.runtime.request import EmbeddingRequest, EngineStats, GenerationRequest
from skep.runtime.snapshot import snapshot

__all__ = ["Engine", "EngineOptions"]

DRAIN_GRACE_S = 5.0
_log = logging.getLogger(__name__)


class Engine:
    """Continuous batching over the slots of one session of `model`.

    A context manager, synchronous (`with`) and asynchronous (`async with`): it starts and closes.
    """

    def __init__(
        self,
        model: BackendModel,
        options: EngineOptions | None = None,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.options = check_options(options or EngineOptions())
        self.model = model
        self._clock = clock
        self._driver = Driver(model, self.options, clock=clock)
        self._core = self._driver.core
        self._compiler = Compiler(model)
        self._is_draining = False
        self._pid = os.getpid()

    # Lifetime ------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the thread and open the session in it. Raises: InsufficientMemory, InvalidInput, Closed."""
        self._driver.start()
        return self

    def close(self) -> None:
        """End every job with Closed, free the session and join the thread; closing twice is fine.

        Raises: EngineFault when the backend does not come back within 10 s; the thread is left behind then.
        """
        self._driver.close()

    async def drain(self, deadline_s: float) -> int:
        """Admit nothing more, let jobs finish until the deadline, cancel the rest; return how many that were."""
        self._is_draining = True
        if await self._driver.is_idle_within(deadline_s):
            return 0
        left = list(self._core.jobs.values())
        for job in left:
            self._end(job, Cancelled("the engine was drained before the job ended", job_id=job.id))
        if not await self._driver.is_idle_within(DRAIN_GRACE_S):
            raise EngineFault(
                f"{len(self._core.jobs)} jobs did not end within {DRAIN_GRACE_S:g} s of the drain"
            )
        return len(left)

    # Jobs ----------------------------------------------------------------------------------------------------------

    def submit(self, request: GenerationRequest) -> Job:
        """Queue a request; its events come from the returned job.

        A constraint is compiled here, in the caller's thread: milliseconds, or for the first one of a big vocabulary
        a second, so hand those to a thread of their own.

        Raises: InvalidInput and its kinds (ContextOverflow, InvalidToken, InvalidSampling, InvalidGrammar), QueueFull,
        Draining, DuplicateJob, Closed, EngineFault.
        """
        self._check_open()
        if self.model.info.only_embeds:
            raise InvalidInput(f"{self.model.info.name} only embeds; it generates no text")
        vocab_size, context = self.model.info.vocab_size, self.options.session.context
        params = sampling.check(request.sampling, vocab_size=vocab_size)
        check_prompt(request.prompt, vocab_size=vocab_size, context=context)
        check_request(request)
        matcher = self._compiler.compile(request.constraint) if request.constraint is not None else None
        if params.seed is None:
            params = msgspec.structs.replace(params, seed=secrets.randbits(32))
        room = context - len(request.prompt)
        return self._add(request, sampling=params, max_tokens=min(request.max_tokens, room), matcher=matcher)

    def embed(self, request: EmbeddingRequest) -> Job:
        """Queue a text to embed. Raises: as `submit`."""
        self._check_open()
        check_prompt(
            request.prompt, vocab_size=self.model.info.vocab_size, context=self._core.lane.context + 1
        )
        return self._add(request, sampling=sampling.SamplingParams(seed=0), max_tokens=0, matcher=None)

    def cancel(self, job_id: str) -> bool:
        """Ask for a job's end; False when there is none of this id, or it is over."""
        job = self._core.jobs.get(job_id)
        if job is None:
            return False
        self._end(job, None)
        return True

    def jobs(self) -> list[Job]:
        """Return every job that is not over."""
        return list(self._core.jobs.values())

    def give_up(self, fault: SkepError) -> None:
        """Fail every job with `fault`, now and from now on: what the engine computes is not to be trusted any more."""
        self._driver.post(lambda: self._core.give_up(fault))
        self._core.interrupt()

    @property
    def fault(self) -> SkepError | None:
        """Why the engine can no longer decode; None while all is well."""
        return self._core.fault

    def stats(self) -> EngineStats:
        """Return a moment of the engine, cheaply, from any thread."""
        return snapshot(self._core, is_draining=self._is_draining)

    def memory(self) -> MemoryUse:
        """Return what weights and context hold together, cheaply, from any thread."""
        weights, session = self.model.memory(), self._core.session
        context = session.memory() if session is not None else MemoryUse(ram_bytes=0, device_bytes=0)
        return MemoryUse(
            ram_bytes=weights.ram_bytes + context.ram_bytes,
            device_bytes=weights.device_bytes + context.device_bytes,
        )

    def check_integrity(self) -> bool:
        """True when slots, lists, caches and outboxes agree; looked at between two steps. For tests and diagnosis."""
        answer: concurrent.futures.Future[list[str]] = concurrent.futures.Future()
        if not self._driver.is_running:
            return not self._core.jobs
        self._driver.post(lambda: answer.set_result(violations(self._core)))
        found = answer.result(CLOSE_S_MAX)
        for violation in found:
            _log.error("the engine is inconsistent: %s", violation)
        return not found

    # The caller's side ---------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if not self._driver.is_running:
            raise Closed("the engine is not running")
        if os.getpid() != self._pid:
            raise Closed(
                "the engine was started before a fork, and its thread is not here; load the model in the child"
            )
        if self._core.fault is not None:
            raise self._core.fault
        if self._is_draining:
            raise Draining("the engine is draining and admits nothing more")

    def _add(
        self,
        request: GenerationRequest | EmbeddingRequest,
        *,
        sampling: sampling.SamplingParams,
        max_tokens: int,
        matcher: Matcher | None,
    ) -> Job:
        job: Job
        outbox = Outbox(self.options.events_max, lambda: self._driver.post(lambda: self._core.resume(job)))
        job = Job(
            request,
            sampling=sampling,
            max_tokens=max_tokens,
            now=self._clock(),
            matcher=matcher,
            outbox=outbox,
            cancel=self.cancel,
        )
        jobs = self._core.jobs
        with self._driver.gate:
            self._check_open()
            if job.id in jobs:
                raise DuplicateJob(f"a job with the id {job.id!r} is queued or running", job_id=job.id)
            if len(jobs) >= self.options.session.sequences + self.options.queue_max:
                raise QueueFull(f"{len(jobs)} jobs are running or waiting already", queued=len(jobs))
            jobs[job.id] = job
        self._driver.post(lambda: self._core.enqueue(job))
        return job

    def _end(self, job: Job, error: SkepError | None) -> None:
        self._driver.post(lambda: self._core.cancel(job, error))
        if job.id in self._core.prefill_jobs:
            self._core.interrupt()

    # Context managers ----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(self, *_exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """As `close`, without holding up the event loop."""
        await asyncio.to_thread(self.close)
