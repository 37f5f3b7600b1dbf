"""The engine without its thread: one call of `step` admits, decodes, samples and tells.

Everything here belongs to the thread that owns the session, but for `interrupt`. Time comes from an injected clock, so
tests drive it with a virtual one.
"""

import logging
from collections.abc import Callable
from time import monotonic

from skep.errors import SkepError
from skep.errors.runtime import (
    Cancelled,
    ConsumerStalled,
    DeadlineExceeded,
    DecodeAborted,
    NoCacheSlot,
)
from skep.lifecycle.job import JobEvent, JobState
from skep.runtime import recovery, seating
from skep.runtime.backend import BackendModel, BackendSession
from skep.runtime.counters import Counters
from skep.runtime.embedding import EmbeddingLane
from skep.runtime.job import Job
from skep.runtime.narrator import Narrator
from skep.runtime.options import EngineOptions
from skep.runtime.outbox import Outbox, wake
from skep.runtime.request import EmbeddingRequest, Failed
from skep.runtime.roster import Roster
from skep.runtime.scheduler import Batch, Scheduler
from skep.runtime.sequence import Sequence
from skep.runtime.slots import PrefixCache
from skep.runtime.text import Pieces

EXPIRY_CHECK_S = 0.05
_log = logging.getLogger(__name__)
_NOBODY: frozenset[str] = frozenset()


class EngineCore:
    """Slots, the queue before them and the session behind them.

    `jobs` holds every job that is not over; a shell may add to it from another thread, before `enqueue`.
    `prefill_jobs` names the jobs whose prompt the decode in flight computes: a shell that cancels one of them
    interrupts. `poll` is called between the batches of one step, for the shell's own work.
    """

    def __init__(
        self,
        model: BackendModel,
        options: EngineOptions,
        *,
        clock: Callable[[], float] = monotonic,
        poll: Callable[[], None] = lambda: None,
    ) -> None:
        self.model, self.options = model, options
        self.jobs: dict[str, Job] = {}
        self.roster = Roster(options.session.sequences)
        self.lane = EmbeddingLane(model, options)
        self.counters = Counters()
        self.fault: SkepError | None = None
        self.prefill_jobs = _NOBODY
        self.session: BackendSession | None = None
        self._clock, self._poll = clock, poll
        self._in_flight: BackendSession | None = None
        self.pieces = Pieces(model.piece)
        self.narrator = Narrator(model.info.end_tokens)
        self._scheduler = Scheduler(options)
        self.prefixes = PrefixCache(
            chunk_rows=options.chunk_rows if options.deterministic else None,
            length_min=options.reuse_prefix_min,
            is_enabled=options.reuse_prefix,
        )
        self.touched: list[Outbox] = []
        self._expiry_at = 0.0
        self.is_tight = False  # The cache is full: nobody is admitted until somebody leaves.
        self.is_neighbours_turn = False  # After an interrupt a step without prefill, so that others get on.
        self.faults = 0  # Failed decodes in a row.

    def open(self) -> None:
        """Open the session in this thread. Raises: InsufficientMemory, InvalidInput, Closed."""
        if self.model.info.only_embeds:
            self.lane.open()
        else:
            self.session = self.model.open_session(self.options.session)

    def enqueue(self, job: Job) -> None:
        """Take a job that stands in `jobs`."""
        if job.is_over:
            return
        self._expiry_at = min(self._expiry_at, job.deadline_at)
        if self.fault is not None:
            self.fail(job, self.fault)
        elif isinstance(job.request, EmbeddingRequest):
            self.lane.waiting.append(job)
        else:
            self.roster.queue.push(job)

    def cancel(self, job: Job, error: SkepError | None = None) -> None:
        """End a job, wherever it is; one that is over stays as it is."""
        if not job.is_over:
            self.drop(job, error or Cancelled("the job was cancelled", job_id=job.id), JobEvent.CANCEL)

    def resume(self, job: Job) -> None:
        """The reader of a paused job has made room."""
        if job.state is not JobState.PAUSED or not job.outbox.has_room:
            return
        roster = self.roster
        seq = next(seq for seq in (*roster.paused, *roster.parked) if seq.job is job)
        job.advance(JobEvent.CONSUMER_BACK)
        job.outbox.is_paused = False
        if seq.slot is None:
            job.advance(JobEvent.PREEMPTED)
            roster.parked.remove(seq)
            roster.preempted.append(seq)
        else:
            roster.paused.remove(seq)
            roster.sort_in(seq)

    def give_up(self, fault: SkepError) -> None:
        """Fail every job, now and from now on."""
        _log.error("the engine gives up: %s", fault)
        self.fault = fault
        for job in list(self.jobs.values()):
            if not job.is_over:
                self.drop(job, fault, JobEvent.FAULT)

    def interrupt(self) -> None:
        """End the decode in flight soon; its jobs go on. Safe from any thread."""
        session = self._in_flight
        if session is not None:
            session.interrupt()

    def step(self) -> bool:
        """Do one round of work; False when there was none."""
        now = self._clock()
        if now >= self._expiry_at:
            self._expire(now)
        roster = self.roster
        if roster.queue or roster.preempted:
            seating.admit(self, now)
        if self.lane.waiting:
            self._embed()
        session = self.session
        prompts = seating.prompts(self, session) if roster.prefilling and session is not None else []
        self.is_neighbours_turn = False
        batches = self._scheduler.plan(roster.decoding, prompts) if session is not None else []
        for index, batch in enumerate(batches):
            if index:
                if batch.has_prompt:
                    self.flush()  # Tokens are told now, not after a prompt's rows.
                self._poll()
                if any(part.sequence.slot is None for part in batch.parts):  # It left while its turn came.
                    continue
            if not self._run(batch):
                break
        self.flush()
        return bool(batches or self.lane.waiting or (roster.waiting and seating.can_admit(self)))

    def flush(self) -> None:
        """Wake the readers for whom there is something new."""
        if self.touched:
            touched, self.touched = self.touched, []
            wake(touched)

    def close(self, error: SkepError) -> None:
        """End every job with `error` and free the sessions."""
        for job in list(self.jobs.values()):
            self.cancel(job, error)
        self.lane.close()
        if self.session is not None:
            self.session.close()
            self.session = None
        self.roster.forget_caches()
        self.flush()

    # Decoding ------------------------------------------------------------------------------------------------------

    def _run(self, batch: Batch) -> bool:
        """Decode one batch and sample from it; False when the rest of the step's plan no longer holds."""
        session = self.session
        assert session is not None
        if batch.has_prompt:
            self.prefill_jobs = frozenset(part.sequence.job.id for part in batch.parts if part.length > 1)
        self._in_flight = session
        self.counters.steps += 1
        try:
            session.decode(batch.rows)
        except DecodeAborted:
            recovery.repair(self, batch, session)
        except NoCacheSlot as error:
            recovery.relieve(self, error, session)
        except SkepError as error:
            recovery.reopen(self, error)
        else:
            self.faults = 0
            self._absorb(batch, session)
            return True
        finally:
            self._in_flight, self.prefill_jobs = None, _NOBODY
        return False

    def _absorb(self, batch: Batch, session: BackendSession) -> None:
        now = self._clock()
        chunk_rows = self.options.chunk_rows
        for seq, length, row in batch.parts:
            seq.computed += length
            if length == chunk_rows:
                seq.border = seq.computed
            if row >= 0:
                if seq.is_prefilling:
                    self.roster.promote(seq)
                try:
                    self._sample(seq, row, session, now)
                except SkepError as error:
                    self.fail(seq.job, error, seq)

    def _sample(self, seq: Sequence, row: int, session: BackendSession, now: float) -> None:
        job = seq.job
        if job.state is JobState.PREFILL:
            job.advance(JobEvent.FIRST_TOKEN)
            seq.first_token_at = seq.first_token_at or now
        if seq.is_plain:
            reason = self.narrator.tell(seq, session.sample(seq.sampler, row))
        else:
            reason = self.narrator.tell(seq, *seq.choose(session, row, self.pieces))
        self.touched.append(job.outbox)
        self.counters.generated_tokens += 1
        if reason is not None:
            self.narrator.finish(seq, reason, now=now)
            self.counters.finished += 1
            self._leave(seq, now)
            self._over(job, JobEvent.FINISHED)
        elif job.outbox.is_full:
            self._pause(seq, now)

    def _pause(self, seq: Sequence, now: float) -> None:
        job = seq.job
        job.advance(JobEvent.CONSUMER_STALLED)
        job.paused_at = now
        self.roster.take_out(seq)
        self.roster.paused.append(seq)
        job.outbox.is_paused = True
        self.resume(job)  # Its reader may have read everything before it could see that we wait for it.

    def _embed(self) -> None:
        job = self.lane.waiting.popleft()
        job.advance(JobEvent.ADMITTED)
        self.prefill_jobs = frozenset((job.id,))
        try:
            event = self.lane.embed(job, in_flight=self._flies)
        except DecodeAborted:
            # If it was this job that was cancelled, that command comes before the next step.
            self.counters.interrupted += 1
            job.advance(JobEvent.PREEMPTED)
            self.lane.waiting.appendleft(job)
        except SkepError as error:
            self.fail(job, error)
        else:
            self.counters.prompt_tokens += event.prompt_tokens
            self.counters.finished += 1
            job.outbox.put(event)
            self._over(job, JobEvent.FINISHED)
        finally:
            self._in_flight, self.prefill_jobs = None, _NOBODY

    def _flies(self, session: BackendSession) -> None:
        self._in_flight = session

    # Ends ----------------------------------------------------------------------------------------------------------

    def _expire(self, now: float) -> None:
        """End what is past its deadline, and readers that stay behind."""
        self._expiry_at = now + EXPIRY_CHECK_S
        for job in list(self.jobs.values()):
            if job.is_over:
                continue
            self._expiry_at = min(self._expiry_at, max(job.deadline_at, now))
            if now >= job.deadline_at:
                limit = f"{job.request.deadline_s:g} s"
                self.drop(
                    job,
                    DeadlineExceeded(f"the job did not end within {limit}", job_id=job.id),
                    JobEvent.DEADLINE,
                )
            elif job.state is JobState.PAUSED and now - job.paused_at >= self.options.stall_s:
                limit = f"{self.options.stall_s:g} s"
                stalled = ConsumerStalled(f"the reader took nothing for {limit}", job_id=job.id)
                self.drop(job, stalled, JobEvent.STALL_DEADLINE)

    def drop(self, job: Job, error: SkepError, event: JobEvent) -> None:
        """End a job that may be anywhere."""
        roster = self.roster
        seq = next((seq for seq in (*roster.active(), *roster.unseated()) if seq.job is job), None)
        if seq is not None and seq.slot is None:
            roster.forget(seq)
            seq.sampler.close()
            seq = None
        elif seq is None and job in self.lane.waiting:
            self.lane.waiting.remove(job)
        elif seq is None and job in roster.queue:
            roster.queue.remove(job)
        self.fail(job, error, seq, event=event)

    def fail(
        self, job: Job, error: SkepError, seq: Sequence | None = None, *, event: JobEvent = JobEvent.FAULT
    ) -> None:
        """End a job that is in no list but its sequence's, if it has one."""
        if seq is not None:
            self._leave(seq, self._clock())
        job.outbox.put(Failed(error=error, tokens_out=job.tokens_out))
        if event is JobEvent.FAULT:
            self.counters.failed += 1
        else:
            self.counters.cancelled += 1
        self._over(job, event)

    def _leave(self, seq: Sequence, now: float) -> None:
        self.roster.unseat(seq, now=now)
        seq.sampler.close()
        self.is_tight = False

    def _over(self, job: Job, event: JobEvent) -> None:
        job.advance(event)
        self.jobs.pop(job.id, None)
        self.touched.append(job.outbox)
