"""The batching engine: one owner thread beside the caller's event loop.

`submit` and `cancel` are safe from any thread. Commands reach the thread through an inbox between two steps; events
come back through each job's outbox, with one wake-up a step for all jobs of a loop.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import queue
import secrets
import threading
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
from skep.runtime.core import EngineCore
from skep.runtime.intake import check_prompt, check_request
from skep.runtime.integrity import violations
from skep.runtime.job import Job
from skep.runtime.options import EngineOptions, check_options
from skep.runtime.outbox import Outbox
from skep.runtime.request import EmbeddingRequest, EngineStats, GenerationRequest

__all__ = ["Engine", "EngineOptions"]

IDLE_WAIT_S_MAX = 0.05  # While jobs wait for something: how late a deadline or a stall may be noticed.
CLOSE_S_MAX = 10.0
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
        self._core = EngineCore(model, self.options, clock=clock, poll=self._read_inbox)
        self._compiler = Compiler(model)
        self._inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._admission = threading.Lock()
        self._started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread: threading.Thread | None = None
        self._idle_watchers: list[Callable[[], None]] = []
        self._is_draining = False
        self._is_closed = False
        self._pid = os.getpid()

    # Lifetime ------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the thread and open the session in it. Raises: InsufficientMemory, InvalidInput, Closed."""
        if self._is_closed or self._thread is not None:
            raise Closed("an engine starts once")
        self._thread = threading.Thread(target=self._main, name="skep-engine", daemon=True)
        self._thread.start()
        try:
            self._started.result()
        except SkepError:
            self._is_closed = True
            self._thread.join()
            raise
        return self

    def close(self) -> None:
        """End every job with Closed, free the session and join the thread; closing twice is fine.

        Raises: EngineFault when the backend does not come back within 10 s; the thread is left behind then.
        """
        with self._admission:
            self._is_closed = True
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        self._inbox.put(lambda: None)
        self._core.interrupt()
        thread.join(CLOSE_S_MAX)
        if thread.is_alive():
            raise EngineFault(f"the backend did not come back from a decode within {CLOSE_S_MAX:g} s")

    async def drain(self, deadline_s: float) -> int:
        """Admit nothing more, let jobs finish until the deadline, cancel the rest; return how many that were."""
        self._is_draining = True
        if await self._idle_within(deadline_s):
            return 0
        left = list(self._core.jobs.values())
        for job in left:
            self._end(job, Cancelled("the engine was drained before the job ended", job_id=job.id))
        if not await self._idle_within(DRAIN_GRACE_S):
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

    @property
    def fault(self) -> SkepError | None:
        """Why the engine can no longer decode; None while all is well."""
        return self._core.fault

    def stats(self) -> EngineStats:
        """Return a moment of the engine, cheaply, from any thread."""
        roster, counters = self._core.roster, self._core.counters
        slots = len(roster.slots)
        active = [slot.sequence for slot in roster.slots]
        running = [seq for seq in active if seq is not None]
        return EngineStats(
            slots_total=slots,
            slots_free=slots - len(running),
            running=len(running),
            waiting=roster.waiting + len(self._core.lane.waiting),
            paused=len(roster.paused) + len(roster.parked),
            kv_used=sum(seq.computed for seq in running) / (slots * self.options.session.context),
            prompt_tokens_total=counters.prompt_tokens,
            generated_tokens_total=counters.generated_tokens,
            prefix_queries_total=counters.prefix_queries,
            prefix_hits_total=counters.prefix_hits,
            cancelled_total=counters.cancelled,
            failed_total=counters.failed,
            finished_total=counters.finished,
            preempted_total=counters.preempted,
            interrupted_total=counters.interrupted,
            reopened_total=counters.reopened,
            steps_total=counters.steps,
            draining=self._is_draining,
        )

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
        if self._thread is None or self._is_closed:
            return not self._core.jobs
        self._inbox.put(lambda: answer.set_result(violations(self._core)))
        found = answer.result(CLOSE_S_MAX)
        for violation in found:
            _log.error("the engine is inconsistent: %s", violation)
        return not found

    # The caller's side ---------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._is_closed or self._thread is None:
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
        outbox = Outbox(self.options.events_max, lambda: self._inbox.put(lambda: self._core.resume(job)))
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
        with self._admission:
            self._check_open()
            if job.id in jobs:
                raise DuplicateJob(f"a job with the id {job.id!r} is queued or running", job_id=job.id)
            if len(jobs) >= self.options.session.sequences + self.options.queue_max:
                raise QueueFull(f"{len(jobs)} jobs are running or waiting already", queued=len(jobs))
            jobs[job.id] = job
        self._inbox.put(lambda: self._core.enqueue(job))
        return job

    def _end(self, job: Job, error: SkepError | None) -> None:
        self._inbox.put(lambda: self._core.cancel(job, error))
        if job.id in self._core.prefill_jobs:
            self._core.interrupt()

    async def _idle_within(self, seconds: float) -> bool:
        if self._is_closed:
            return not self._core.jobs
        loop = asyncio.get_running_loop()
        idle = loop.create_future()

        def resolve() -> None:
            if not idle.done():
                idle.set_result(None)

        def watcher() -> None:
            with contextlib.suppress(RuntimeError):  # The loop was closed: nobody waits any more.
                loop.call_soon_threadsafe(resolve)

        def forget() -> None:
            if watcher in self._idle_watchers:
                self._idle_watchers.remove(watcher)

        self._inbox.put(lambda: self._idle_watchers.append(watcher))
        try:
            async with asyncio.timeout(seconds):
                await idle
        except TimeoutError:
            return False
        finally:
            self._inbox.put(forget)
        return True

    # The engine's thread -------------------------------------------------------------------------------------------

    def _main(self) -> None:
        core = self._core
        try:
            core.open()
        except BaseException as error:  # noqa: BLE001 - handed to `start`, which raises it
            self._started.set_exception(error)
            return
        self._started.set_result(None)
        try:
            self._loop()
        except Exception as error:  # noqa: BLE001 - a supervisor: our mistake must not leave readers waiting
            _log.exception("the engine's thread failed")
            core.give_up(EngineFault(f"the engine failed: {error!r}", cause=error))
        finally:
            with self._admission:
                self._is_closed = True
            core.close(Closed("the engine was closed before the job ended"))
            self._tell_idle()

    def _loop(self) -> None:
        core, inbox = self._core, self._inbox
        while not self._is_closed:
            self._read_inbox()
            if core.step():
                continue
            self._tell_idle()
            with contextlib.suppress(queue.Empty):
                inbox.get(timeout=IDLE_WAIT_S_MAX if core.jobs else None)()
                core.flush()

    def _read_inbox(self) -> None:
        inbox = self._inbox
        if inbox.empty():
            return
        while not inbox.empty():
            inbox.get_nowait()()
        self._core.flush()  # Ends are told now, not after a step that may be long.

    def _tell_idle(self) -> None:
        if self._core.jobs:
            return
        while self._idle_watchers:
            self._idle_watchers.pop()()

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
