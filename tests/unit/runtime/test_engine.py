"""The engine's thread: interrupts, faults of our own, many readers, and nothing left behind."""

import asyncio
import gc
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from skep.errors import InvalidInput
from skep.errors.runtime import (
    Cancelled,
    Closed,
    ConsumerStalled,
    ContextOverflow,
    EngineFault,
    InsufficientMemory,
)
from skep.lifecycle.job import JobState
from skep.runtime.backend import LoadOptions, SessionOptions
from skep.runtime.engine import Engine, EngineOptions
from skep.runtime.fake import FakeBackend, FakeModel, FakeScript
from skep.runtime.job import Job
from skep.runtime.request import (
    Embedded,
    EmbeddingRequest,
    Event,
    Failed,
    Finished,
    GenerationRequest,
    Token,
)
from skep.runtime.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0.0, seed=1)
WAIT_S = 30.0


def load(**script: Any) -> FakeModel:
    return FakeBackend(FakeScript(**script)).load(Path("fake:x"), LoadOptions())


@asynccontextmanager
async def running(model: FakeModel, **changes: Any) -> AsyncIterator[Engine]:
    shape = {
        name: changes.pop(name) for name in ("sequences", "context", "batch_rows_max") if name in changes
    }
    session = SessionOptions(**({"sequences": 4, "context": 1024, "threads": 1, "threads_batch": 1} | shape))
    async with Engine(model, EngineOptions(session=session, **changes)) as engine:
        yield engine
    model.close()


def ask(job_id: str = "job", prompt: str = "a", max_tokens: int = 20, **changes: Any) -> GenerationRequest:
    given = {"sampling": GREEDY, "ignore_end": True} | changes
    return GenerationRequest(job_id=job_id, prompt=tuple(prompt.encode()), max_tokens=max_tokens, **given)


async def events_of(job: Job) -> list[Event]:
    async with asyncio.timeout(WAIT_S):
        return [event async for event in job]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.001)


# Interrupting


async def test_a_cancel_ends_a_prefill_chunk_that_would_take_a_minute() -> None:
    async with running(load(row_delay_us=120_000)) as engine:
        job = engine.submit(ask(prompt="x" * 500))
        await until(lambda: job.state is JobState.PREFILL and job.id in engine._core.prefill_jobs)
        job.cancel()
        assert isinstance((await events_of(job))[-1].error, Cancelled)
        assert engine.stats().interrupted_total == 1
        assert engine.stats().slots_free == 4


async def test_a_cancel_of_another_job_does_not_interrupt_a_prefill() -> None:
    async with running(load(row_delay_us=200)) as engine:
        long = engine.submit(ask("long", "x" * 900, 1))
        other = engine.submit(ask("other", "y", 1000))
        other.cancel()
        await events_of(other)
        await events_of(long)
        assert engine.stats().interrupted_total == 0


async def test_closing_interrupts_a_decode_that_hangs() -> None:
    async with running(load(hang_after=2)) as engine:
        job = engine.submit(ask())
        await until(lambda: job.tokens_out == 1)
        await engine.aclose()
        assert isinstance((await events_of(job))[-1].error, Closed)


# Lifetimes and faults of our own


async def test_what_cannot_start_says_why_and_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load()

    def refuse(_: Any) -> None:
        raise InsufficientMemory("not enough")

    monkeypatch.setattr(model, "open_session", refuse)
    engine = Engine(model)
    before = threading.active_count()
    with pytest.raises(InsufficientMemory):
        engine.start()
    assert threading.active_count() == before
    with pytest.raises(Closed):
        engine.submit(ask())
    engine.close()


def test_an_engine_starts_once() -> None:
    model = load()
    with Engine(model) as engine, pytest.raises(Closed):
        engine.start()
    with pytest.raises(Closed):
        engine.start()
    with pytest.raises(Closed):
        Engine(model).submit(ask())
    model.close()


def test_options_are_checked_when_the_engine_is_made() -> None:
    with pytest.raises(InvalidInput):
        Engine(load(), EngineOptions(prefill_share=2.0))


async def test_a_mistake_of_ours_fails_every_job_and_ends_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(load(token_delay_ms=1)) as engine:
        jobs = [engine.submit(ask(f"job-{at}", max_tokens=500)) for at in range(6)]
        await until(lambda: jobs[0].tokens_out > 0)

        def broken(*_: Any) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(engine._core.narrator, "tell", broken)
        for job in jobs:
            end = (await events_of(job))[-1]
            assert isinstance(end, Failed)
            assert isinstance(end.error, EngineFault)
        assert isinstance(engine.fault, EngineFault)
        with pytest.raises((EngineFault, Closed)):
            engine.submit(ask("late"))


async def test_a_fault_of_the_backend_is_told_and_work_goes_on() -> None:
    async with running(load(fail_decode_after=3, token_delay_ms=1), sequences=2) as engine:
        jobs = [engine.submit(ask(f"job-{at}")) for at in range(6)]
        ends = [(await events_of(job))[-1] for job in jobs]
        assert sum(isinstance(end, Failed) for end in ends) == 2
        assert engine.stats().reopened_total == 1
        assert engine.check_integrity()


def test_readers_in_threads_and_loops_at_once_get_their_own_text() -> None:
    model = load()
    texts: dict[str, str] = {}

    def blocking(name: str) -> None:
        texts[name] = text_of(list(engine.submit(ask(name, name))))

    def looping(name: str) -> None:
        async def read() -> None:
            texts[name] = text_of(await events_of(engine.submit(ask(name, name))))

        asyncio.run(read())

    with Engine(model) as engine:
        names = [f"reader {at}" for at in range(8)]
        threads = [
            threading.Thread(target=(blocking, looping)[at % 2], args=(name,))
            for at, name in enumerate(names)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert texts == {name: text_of(list(engine.submit(ask(f"{name} again", name)))) for name in names}
    model.close()


async def test_an_encoder_embeds_and_refuses_to_generate() -> None:
    async with running(load(only_embeds=True, context_train=64)) as engine:
        (event,) = await events_of(engine.embed(EmbeddingRequest(job_id="e", prompt=(1, 2, 3))))
        assert isinstance(event, Embedded)
        with pytest.raises(InvalidInput, match="only embeds"):
            engine.submit(ask())
        with pytest.raises(ContextOverflow):
            engine.embed(EmbeddingRequest(job_id="long", prompt=(1,) * 65))
        assert engine.check_integrity()


async def test_an_embedding_in_flight_can_be_cancelled_and_an_interrupted_one_goes_on() -> None:
    async with running(load(row_delay_us=20_000)) as engine:
        jobs = [engine.embed(EmbeddingRequest(job_id=name, prompt=(1,) * 30)) for name in ("goes", "stays")]
        await until(lambda: "goes" in engine._core.prefill_jobs)
        jobs[0].cancel()
        (end,) = await events_of(jobs[0])
        assert isinstance(end.error, Cancelled)
        await until(lambda: "stays" in engine._core.prefill_jobs)
        engine._core.interrupt()
        (event,) = await events_of(jobs[1])
        assert isinstance(event, Embedded)


# Many


async def test_two_hundred_stalled_readers_hold_bounded_memory_and_keep_nobody_waiting() -> None:
    async with running(load(), sequences=50, queue_max=256, events_max=32, stall_s=60.0) as engine:
        stalled = [engine.submit(ask(f"stalled-{at}", max_tokens=900)) for at in range(200)]
        await until(lambda: engine.stats().paused == 200)
        assert [len(job.outbox) for job in stalled] == [32] * 200
        steps = engine.stats().steps_total
        assert engine.check_integrity()
        assert engine.stats().steps_total == steps, "nothing is decoded for readers that do not read"
        reader = await events_of(engine.submit(ask("reader", max_tokens=500)))
        assert isinstance(reader[-1], Finished)
        assert not any(job.is_over for job in stalled)
        late, other = stalled[0], stalled[199]
        assert text_of(await events_of(late)) == text_of(await events_of(other))
        for job in stalled:
            job.cancel()
        await until(lambda: not engine.jobs())
        assert engine.check_integrity()
        assert engine.stats().slots_free == 50


async def cancel_at_random(engine: Engine, *, jobs: int, seed: int) -> None:
    chooser = random.Random(seed)

    async def one(number: int) -> None:
        prompt = "the hive " * chooser.randint(0, 30) + str(number)
        job = engine.submit(ask(f"job-{number}", prompt, chooser.randint(1, 60)))
        after = chooser.randint(0, 20)
        count = 0
        while batch := await job.next_events():
            count += len(batch)
            if count >= after:
                job.cancel()

    numbers = iter(range(jobs))

    async def worker() -> None:
        for number in numbers:
            await one(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(12):
            group.create_task(worker())


async def test_random_cancels_leave_slots_and_caches_whole() -> None:
    async with running(load(row_delay_us=5)) as engine:
        await cancel_at_random(engine, jobs=300, seed=1)
        assert engine.check_integrity()
        stats = engine.stats()
        assert (stats.slots_free, stats.waiting, stats.kv_used) == (4, 0, 0.0)
        assert stats.finished_total + stats.cancelled_total == 300


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", ["fake", pytest.param("llama", marks=pytest.mark.llama)])
async def test_ten_thousand_random_cancels_leave_memory_as_it_was(backend: str) -> None:
    from skep.runtime.models import TINY
    from skep.runtime.open import open_backend

    model = load() if backend == "fake" else open_backend("llama").load(TINY, LoadOptions())
    process = psutil.Process()
    async with running(model, queue_max=64) as engine:
        await cancel_at_random(engine, jobs=2_000, seed=0)  # Warm: caches of pieces, pools of the allocator.
        gc.collect()
        before = process.memory_info().rss, process.num_fds(), threading.active_count()
        await cancel_at_random(engine, jobs=10_000, seed=1)
        gc.collect()
        after = process.memory_info().rss, process.num_fds(), threading.active_count()
        assert engine.check_integrity()
        assert engine.stats().slots_free == 4
    assert after[1:] == before[1:]
    assert after[0] - before[0] < 8 * 2**20


async def test_a_stalled_reader_in_a_closed_loop_is_cancelled_in_the_end() -> None:
    async with running(load(), events_max=8, stall_s=0.2) as engine:
        found: list[Job] = []

        def abandon() -> None:
            async def read_a_little() -> None:
                job = engine.submit(ask(max_tokens=500))
                found.append(job)
                await job.next_events()

            asyncio.run(read_a_little())

        await asyncio.to_thread(abandon)
        await until(lambda: found[0].is_over)
        events = await events_of(found[0])
        assert isinstance(events[-1].error, ConsumerStalled)
