"""Engines without threads: the core on a virtual clock, over a scripted fake."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skep.errors.runtime import Closed
from skep.lifecycle.job import JobState
from skep.runtime.backend import LoadOptions, Row, SessionOptions
from skep.runtime.constraint import Compiler
from skep.runtime.core import EngineCore
from skep.runtime.fake import FakeBackend, FakeModel, FakeScript
from skep.runtime.integrity import violations
from skep.runtime.job import Job
from skep.runtime.options import EngineOptions
from skep.runtime.outbox import Outbox
from skep.runtime.request import Event, GenerationRequest, Token
from skep.runtime.sampling import SamplingParams

SHAPE = {"sequences": 3, "context": 96, "batch_rows_max": 16}


class Bench:
    """One core, its clock and its readers."""

    def __init__(self, script: FakeScript, **changes: Any) -> None:
        shape = SHAPE | {field: changes.pop(field) for field in (*SHAPE, "unified_cache") if field in changes}
        self.options = EngineOptions(session=SessionOptions(**shape), **changes)
        self.now = 100.0
        self.model: FakeModel = FakeBackend(script).load(Path("fake:bench"), LoadOptions())
        self.core = EngineCore(self.model, self.options, clock=lambda: self.now)
        self.core.open()
        self.jobs: list[Job] = []
        self.events: dict[str, list[Event]] = {}

    def submit(self, prompt: str | tuple[int, ...], **changes: Any) -> Job:
        tokens = tuple(prompt.encode()) if isinstance(prompt, str) else prompt
        given = {"max_tokens": 5, "sampling": SamplingParams(temperature=0.0, seed=1)} | changes
        request = GenerationRequest(job_id=f"job-{len(self.jobs)}", prompt=tokens, **given)
        matcher = Compiler(self.model).compile(request.constraint) if request.constraint else None
        outbox = Outbox(self.options.events_max, lambda: self.core.resume(job))
        job = Job(
            request,
            sampling=request.sampling,
            max_tokens=min(request.max_tokens, self.options.session.context - len(tokens)),
            now=self.now,
            matcher=matcher,
            outbox=outbox,
            cancel=lambda _: False,
        )
        self.core.jobs[job.id] = job
        self.core.enqueue(job)
        self.jobs.append(job)
        self.events[job.id] = []
        return job

    def read(self, job: Job) -> list[Event]:
        self.events[job.id] += job.outbox.take()
        return self.events[job.id]

    def text(self, job: Job) -> str:
        return "".join(event.text for event in self.read(job) if isinstance(event, Token))

    def step(self) -> bool:
        is_busy = self.core.step()
        assert violations(self.core) == []
        return is_busy

    def step_until(self, condition: Callable[[], bool], *, steps_max: int = 2000) -> None:
        for _ in range(steps_max):
            if condition():
                return
            self.step()
        raise AssertionError("the condition did not come true")

    def finish(self, *jobs: Job) -> None:
        """Step, reading everything, until these jobs (or all) are over."""
        for _ in range(3000):
            for job in self.jobs:
                self.read(job)
            if all(job.is_over for job in jobs or self.jobs):
                return
            self.step()
        raise AssertionError("the jobs did not end")

    def close(self) -> None:
        self.core.close(Closed("the test is over"))
        self.model.close()


@lru_cache(maxsize=4096)
def alone(script: FakeScript, prompt: tuple[int, ...], count: int) -> str:
    """Return what decoding by hand gives, without end tokens in the way."""
    model = FakeBackend(
        msgspec.structs.replace(script, fail_decode_after=0, cache_cells=0, abort_after=0)
    ).load(Path("fake:alone"), LoadOptions())
    session = model.open_session(SessionOptions(sequences=1, context=4096, batch_rows_max=4096))
    sampler = session.make_sampler(SamplingParams(temperature=0.0))
    session.decode([Row(token, at, 0, at == len(prompt) - 1) for at, token in enumerate(prompt)])
    row, out = len(prompt) - 1, []
    for at in range(len(prompt), len(prompt) + count):
        token = session.sample(sampler, row)
        if token in model.info.end_tokens:
            break
        out.append(token)
        session.decode([Row(token, at, 0, wants_logits=True)])
        row = 0
    session.close()
    model.close()
    return b"".join(model_piece(token, script.vocab) for token in out).decode("utf-8", "replace")


def model_piece(token: int, vocab: int) -> bytes:
    from skep.runtime.fake.vocabulary import vocabulary

    return vocabulary(vocab).piece(token, special=False)


@pytest.fixture
def solo() -> Callable[[FakeScript, tuple[int, ...], int], str]:
    return alone


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    """Make benches; each is closed at the end of the test."""
    made: list[Bench] = []

    def make(script: FakeScript | None = None, **changes: Any) -> Bench:
        made.append(Bench(script or FakeScript(), **changes))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def bench_class() -> type[Bench]:
    return Bench


@pytest.fixture
def terminal_states() -> set[JobState]:
    return {JobState.DONE, JobState.CANCELLED, JobState.TIMED_OUT, JobState.FAILED}
