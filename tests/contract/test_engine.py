"""What the batching engine promises, on every backend."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skep.errors import InvalidInput
from skep.errors.runtime import (
    Cancelled,
    Closed,
    ConsumerStalled,
    ContextOverflow,
    DeadlineExceeded,
    Draining,
    DuplicateJob,
    InvalidGrammar,
    InvalidSampling,
    InvalidToken,
    QueueFull,
)
from skep.lifecycle.job import JobState
from skep.runtime.backend import BackendModel, LoadOptions, Row, SessionOptions
from skep.runtime.engine import Engine, EngineOptions
from skep.runtime.fake import FakeBackend, FakeScript
from skep.runtime.job import Job
from skep.runtime.request import (
    Constraint,
    Embedded,
    EmbeddingRequest,
    Event,
    Failed,
    Finished,
    GenerationRequest,
    Started,
    Token,
)
from skep.runtime.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0.0, seed=1)
WAIT_S = 20.0


def options(**changes: Any) -> EngineOptions:
    shape = {"sequences": 3, "context": 256, "batch_rows_max": 64, "threads": 1, "threads_batch": 1}
    for field in set(shape) | {"unified_cache"}:
        if field in changes:
            shape[field] = changes.pop(field)
    return EngineOptions(session=SessionOptions(**shape), **changes)


@asynccontextmanager
async def running(model: BackendModel, **changes: Any) -> AsyncIterator[Engine]:
    async with Engine(model, options(**changes)) as engine:
        yield engine
        assert engine._driver.is_closed or engine.check_integrity()


def prompt(model: BackendModel, text: str = "what color is the sky?") -> tuple[int, ...]:
    return tuple(model.tokenize(text))


def request(
    model: BackendModel, job_id: str = "job", text: str = "what color is the sky?", **changes: Any
) -> GenerationRequest:
    given = {"max_tokens": 12, "sampling": GREEDY, "ignore_end": True} | changes
    return GenerationRequest(
        job_id=job_id,
        prompt=changes.pop("prompt", prompt(model, text)),
        **{k: v for k, v in given.items() if k != "prompt"},
    )


async def events_of(job: Job) -> list[Event]:
    async with asyncio.timeout(WAIT_S):
        return [event async for event in job]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.001)


def solo_text(model: BackendModel, text: str, count: int) -> str:
    """Decode by hand: no engine."""
    session = model.open_session(SessionOptions(sequences=1, context=256, batch_rows_max=256, threads=1))
    tokens = model.tokenize(text)
    session.decode([Row(token, at, 0, at == len(tokens) - 1) for at, token in enumerate(tokens)])
    sampler, row, out = session.make_sampler(GREEDY), len(tokens) - 1, []
    for at in range(len(tokens), len(tokens) + count):
        out.append(session.sample(sampler, row))
        session.decode([Row(out[-1], at, 0, wants_logits=True)])
        row = 0
    sampler.close()
    session.close()
    return b"".join(model.piece(token) for token in out).decode("utf-8", "replace")


@contextmanager
def scripted(model: BackendModel, backend_name: str, **script: Any) -> Iterator[BackendModel]:
    """Yield the model, or in the fake's place one that is as slow, or as noisy in its low bits, as a real one."""
    if backend_name != "fake":
        yield model
        return
    loaded = FakeBackend(FakeScript(**script)).load(Path("fake:scripted"), LoadOptions())
    yield loaded
    loaded.close()


# Streams


async def test_a_stream_is_one_start_tokens_in_order_and_one_end(model: BackendModel) -> None:
    async with running(model) as engine:
        events = await events_of(engine.submit(request(model)))
    start, *tokens, end = events
    assert isinstance(start, Started)
    assert start.prompt_tokens == len(prompt(model))
    assert isinstance(end, Finished)
    assert end.stop_reason == "max_tokens"
    assert end.tokens_out == 12
    at = 0
    for token in tokens:
        assert isinstance(token, Token)
        assert token.index == at
        at += token.tokens
    assert at <= 12


async def test_the_text_is_what_decoding_by_hand_gives(model: BackendModel) -> None:
    async with running(model) as engine:
        text = text_of(await events_of(engine.submit(request(model))))
    assert text == solo_text(model, "what color is the sky?", 12)


async def test_batched_jobs_say_what_each_would_alone(model: BackendModel) -> None:
    questions = [f"count from {index} to {index + 5} " * (index % 3 + 1) for index in range(10)]
    async with running(model) as engine:
        jobs = [engine.submit(request(model, f"job-{at}", text)) for at, text in enumerate(questions)]
        texts = [text_of(events) for events in await asyncio.gather(*map(events_of, jobs))]
    assert texts == [solo_text(model, text, 12) for text in questions]


async def test_a_job_can_be_read_in_batches_of_events_and_by_a_thread(model: BackendModel) -> None:
    async with running(model) as engine:
        job, events = engine.submit(request(model, "a")), []
        while batch := await job.next_events():
            events += batch
        blocking = await asyncio.to_thread(list, engine.submit(request(model, "b")))
    assert text_of(blocking) == text_of(events)
    assert isinstance(blocking[-1], Finished)


async def test_a_seed_that_was_not_asked_for_is_told_and_repeats_the_text(model: BackendModel) -> None:
    wild = SamplingParams(temperature=1.5)
    async with running(model, deterministic=True) as engine:
        first = await events_of(engine.submit(request(model, sampling=wild)))
        seed = first[0].seed
        again = await events_of(
            engine.submit(request(model, sampling=SamplingParams(temperature=1.5, seed=seed)))
        )
    assert text_of(first) == text_of(again)


async def test_generation_stops_where_the_context_is_full(model: BackendModel) -> None:
    async with running(model, context=32) as engine:
        tokens = (prompt(model) * 40)[:30]
        events = await events_of(engine.submit(request(model, prompt=tokens, max_tokens=100)))
    assert events[-1].tokens_out == 2
    assert events[-1].stop_reason == "max_tokens"


async def test_a_stop_string_across_token_borders_is_never_shown(model: BackendModel) -> None:
    whole = solo_text(model, "what color is the sky?", 12)
    stop = whole[3:7]
    async with running(model) as engine:
        events = await events_of(engine.submit(request(model, stop=("never in there", stop))))
    assert text_of(events) == whole[: whole.index(stop)]
    assert events[-1].stop_reason == "stop_sequence"
    assert events[-1].stop_matched == stop


# The prefix cache


async def test_a_repeated_prompt_is_taken_from_the_cache_and_says_the_same(model: BackendModel) -> None:
    text = "tell me a long story about the bees and their hive, please"
    async with running(model) as engine:
        cold = await events_of(engine.submit(request(model, text=text)))
        warm = await events_of(engine.submit(request(model, text=text)))
        stats = engine.stats()
    assert cold[0].cached_tokens == 0
    assert warm[0].cached_tokens == warm[0].prompt_tokens - 1
    assert warm[-1].cached_tokens == warm[0].cached_tokens
    assert text_of(warm) == text_of(cold)
    assert stats.prefix_hits_total == warm[0].cached_tokens


@pytest.mark.parametrize("unified", [False, True], ids=["split cache", "unified cache"])
async def test_a_prefix_is_copied_out_of_a_slot_that_is_busy(model: BackendModel, unified: bool) -> None:
    text = "tell me a long story about the bees and their hive, please"
    async with running(model, unified_cache=unified) as engine:
        busy = engine.submit(request(model, "busy", text, max_tokens=150))
        await until(lambda: busy.tokens_out > 0)
        copied = await events_of(engine.submit(request(model, "copy", text)))
        alone = await events_of(engine.submit(request(model, "again", text + " now")))
        busy.cancel()
        await events_of(busy)
    assert copied[0].cached_tokens > 0
    assert text_of(copied) == solo_text(model, text, 12)
    assert text_of(alone) == solo_text(model, text + " now", 12)


@pytest.mark.parametrize(
    "changes",
    [{}, {"unified_cache": True}, {"deterministic": True, "chunk_rows": 16}],
    ids=lambda c: str(sorted(c)),
)
async def test_prompts_that_begin_alike_and_come_together_are_computed_once(
    model: BackendModel, changes: dict[str, Any]
) -> None:
    text = (
        "tell me a long story about the bees and their hive, about the honey and the queen, about winter and "
    )
    async with running(model, **changes) as engine:
        jobs = [engine.submit(request(model, end, text + end)) for end in ("one", "two", "three")]
        found = dict(zip(("one", "two", "three"), await asyncio.gather(*map(events_of, jobs)), strict=True))
    spared = sorted(events[0].cached_tokens for events in found.values())
    assert spared[0] == 0
    assert spared[1] >= 32
    for end, events in found.items():
        assert text_of(events) == solo_text(model, text + end, 12)


# Cancelling and limits


def long_prompt(model: BackendModel, length: int = 250) -> tuple[int, ...]:
    return (prompt(model) * 100)[:length]


async def test_a_queued_job_can_be_cancelled(model: BackendModel) -> None:
    async with running(model, sequences=1) as engine:
        first = engine.submit(request(model, "first", max_tokens=200))
        queued = engine.submit(request(model, "queued"))
        await until(lambda: engine.stats().waiting == 1)
        assert queued.state is JobState.QUEUED
        assert queued.cancel()
        events = await events_of(queued)
        assert [type(event.error) for event in events] == [Cancelled]
        first.cancel()
        assert isinstance((await events_of(first))[-1], Failed)
        await until(lambda: engine.stats().slots_free == 1)


async def test_a_decoding_job_stops_and_its_neighbour_loses_nothing(model: BackendModel) -> None:
    async with running(model, deterministic=True) as engine:
        stays = engine.submit(request(model, "stays", max_tokens=60))
        goes = engine.submit(request(model, "goes", max_tokens=200))
        await until(lambda: goes.tokens_out >= 3)
        assert engine.cancel("goes")
        events = await events_of(goes)
        assert isinstance(events[-1].error, Cancelled)
        assert events[-1].tokens_out < 200
        assert text_of(await events_of(stays)) == solo_text(model, "what color is the sky?", 60)
        assert not goes.cancel()
        assert not engine.cancel("nobody")


async def test_a_job_in_prefill_can_be_cancelled(model: BackendModel) -> None:
    async with running(model, batch_rows_max=8) as engine:
        job = engine.submit(request(model, prompt=long_prompt(model)))
        await until(lambda: job.state is not JobState.QUEUED)
        job.cancel()
        assert isinstance((await events_of(job))[-1], Failed | Finished)
        await until(lambda: engine.stats().slots_free == 3)


async def test_a_cancel_interrupts_the_chunk_of_a_long_prefill(
    model: BackendModel, backend_name: str
) -> None:
    """4,000 tokens in one decode, which takes the tiny model a good part of a second."""
    with scripted(model, backend_name, row_delay_us=1000) as slow:
        async with running(slow, context=4200, batch_rows_max=4096, sequences=2) as engine:
            neighbour = engine.submit(request(slow, "neighbour", max_tokens=40))
            await until(lambda: neighbour.tokens_out > 0)
            job = engine.submit(request(slow, "long", prompt=long_prompt(slow, 4000)))
            await until(lambda: "long" in engine._core.prefill_jobs)
            job.cancel()
            assert isinstance((await events_of(job))[-1].error, Cancelled)
            assert engine.stats().interrupted_total == 1
            assert text_of(await events_of(neighbour)) == solo_text(slow, "what color is the sky?", 40)


@pytest.mark.parametrize("at", [1, 2, 11], ids=["first token", "second token", "last token but one"])
async def test_a_job_can_be_cancelled_at_any_token(model: BackendModel, at: int) -> None:
    async with running(model) as engine:
        job = engine.submit(request(model))
        await until(lambda: job.tokens_out >= at)
        job.cancel()
        events = await events_of(job)
        assert isinstance(events[-1], Failed | Finished)
        await until(lambda: engine.stats().slots_free == 3)
        assert text_of(await events_of(engine.submit(request(model, "next")))) == solo_text(
            model, "what color is the sky?", 12
        )


async def test_a_cancelled_slot_serves_the_next_job_rightly(model: BackendModel) -> None:
    async with running(model, sequences=1) as engine:
        for round_ in range(5):
            job = engine.submit(request(model, f"goes-{round_}", max_tokens=200))
            await until(lambda job=job, round_=round_: job.tokens_out > round_)
            job.cancel()
            await events_of(job)
        text = text_of(await events_of(engine.submit(request(model, "stays", "count from 3 to 12"))))
    assert text == solo_text(model, "count from 3 to 12", 12)


async def test_leaving_a_job_as_a_context_manager_cancels_it(model: BackendModel) -> None:
    async with running(model) as engine:
        async with engine.submit(request(model, max_tokens=200)) as job:
            await job.next_events()
        await until(lambda: job.is_over)
        assert engine.stats().slots_free == 3


async def test_a_deadline_ends_a_running_and_a_queued_job(model: BackendModel) -> None:
    async with running(model, sequences=1, context=4096, events_max=10_000) as engine:
        jobs = [
            engine.submit(request(model, f"job-{at}", max_tokens=4000, deadline_s=0.05)) for at in range(2)
        ]
        for job in jobs:
            end = (await events_of(job))[-1]
            assert isinstance(end.error, DeadlineExceeded)
            assert job.state is JobState.TIMED_OUT


async def test_a_stalled_reader_pauses_only_itself_and_is_cancelled_in_the_end(model: BackendModel) -> None:
    async with running(model, events_max=8, stall_s=0.3) as engine:
        stalled = engine.submit(request(model, "stalled", max_tokens=200))
        await until(lambda: stalled.state is JobState.PAUSED)
        assert engine.stats().paused == 1
        reader = await events_of(engine.submit(request(model, "reader", max_tokens=100)))
        assert isinstance(reader[-1], Finished)
        assert len(stalled.outbox) <= 10
        await until(lambda: stalled.is_over)
        events = await events_of(stalled)
        assert isinstance(events[-1].error, ConsumerStalled)
        assert len(events) <= 10


async def test_a_slow_reader_loses_nothing(model: BackendModel) -> None:
    async with running(model, events_max=4) as engine:
        job, events = engine.submit(request(model, max_tokens=60)), []
        while batch := await job.next_events():
            events += batch
            await until(lambda: job.state is JobState.PAUSED or job.is_over)
    assert isinstance(events[-1], Finished)
    assert text_of(events) == solo_text(model, "what color is the sky?", 60)


# What is refused


async def test_what_cannot_work_is_refused_at_once(model: BackendModel) -> None:
    bad = [
        (ContextOverflow, {"prompt": long_prompt(model) * 2}),
        (InvalidInput, {"prompt": ()}),
        (InvalidToken, {"prompt": (10**6,)}),
        (InvalidToken, {"prompt": (-1,)}),
        (InvalidSampling, {"sampling": SamplingParams(temperature=9.0)}),
        (InvalidGrammar, {"constraint": Constraint(kind="json_schema", text="{")}),
        (InvalidInput, {"max_tokens": 0}),
        (InvalidInput, {"stop": ("",)}),
        (InvalidInput, {"stop": ("a", "b", "c", "d", "e")}),
        (InvalidInput, {"logprobs": 21}),
        (InvalidInput, {"deadline_s": 0.0}),
    ]
    async with running(model) as engine:
        for error, changes in bad:
            with pytest.raises(error):
                engine.submit(request(model, **changes))
        assert engine.stats().waiting == engine.stats().running == 0


async def test_the_queue_is_bounded_and_ids_are_unique(model: BackendModel) -> None:
    async with running(model, sequences=1, queue_max=2) as engine:
        jobs = [engine.submit(request(model, f"job-{at}", max_tokens=200)) for at in range(3)]
        with pytest.raises(QueueFull):
            engine.submit(request(model, "one too many"))
        jobs[2].cancel()
        await events_of(jobs[2])
        with pytest.raises(DuplicateJob):
            engine.submit(request(model, "job-1"))
        for job in jobs:
            job.cancel()


# Draining and closing


async def test_draining_lets_jobs_finish_and_admits_nothing_more(model: BackendModel) -> None:
    async with running(model) as engine:
        job = engine.submit(request(model))
        draining = asyncio.create_task(engine.drain(WAIT_S))
        await until(lambda: engine.stats().draining)
        with pytest.raises(Draining):
            engine.submit(request(model, "late"))
        assert await draining == 0
        assert isinstance((await events_of(job))[-1], Finished)


async def test_draining_past_its_deadline_cancels_with_a_terminal_event(model: BackendModel) -> None:
    async with running(model, sequences=1, events_max=16) as engine:
        jobs = [engine.submit(request(model, f"job-{at}", max_tokens=200)) for at in range(2)]
        assert await engine.drain(0.05) == 2
        for job in jobs:
            assert isinstance((await events_of(job))[-1].error, Cancelled)


async def test_closing_ends_jobs_typed_and_twice_is_fine(model: BackendModel) -> None:
    async with running(model) as engine:
        job = engine.submit(request(model, max_tokens=200))
        await engine.aclose()
        engine.close()
        end = (await events_of(job))[-1]
        assert isinstance(end, Failed)
        assert isinstance(end.error, Closed)
        with pytest.raises(Closed):
            engine.submit(request(model))


# Constraints, log-probabilities, embeddings


async def test_a_json_schema_shapes_the_answer(model: BackendModel) -> None:
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99}, "ok": {"type": "boolean"}},
        "required": ["age", "ok"],
        "additionalProperties": False,
    }
    constraint = Constraint(kind="json_schema", text=json.dumps(schema))
    async with running(model) as engine:
        for seed in range(3):
            sampling = SamplingParams(temperature=0.8, seed=seed)
            events = await events_of(
                engine.submit(
                    request(model, sampling=sampling, constraint=constraint, max_tokens=120, ignore_end=False)
                )
            )
            found = json.loads(text_of(events))
            assert found.keys() == {"age", "ok"}
            assert events[-1].stop_reason == "end_of_text"


async def test_log_probabilities_are_those_of_the_logits(model: BackendModel) -> None:
    async with running(model) as engine:
        events = await events_of(engine.submit(request(model, logprobs=3, max_tokens=5)))
    tokens = [event for event in events if isinstance(event, Token)]
    assert [token.index for token in tokens if token.tokens] == list(range(5))
    session = model.open_session(SessionOptions(sequences=1, context=256, batch_rows_max=256, threads=1))
    ids = prompt(model)
    session.decode([Row(token, at, 0, at == len(ids) - 1) for at, token in enumerate(ids)])
    logits = session.logits(len(ids) - 1).astype(np.float64)
    session.close()
    expected = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
    first = tokens[0]
    assert first.logprob.token == int(expected.argmax())
    assert first.logprob.logprob == pytest.approx(float(expected.max()), abs=1e-4)
    assert first.top[0] == first.logprob
    assert [entry.logprob for entry in first.top] == pytest.approx(sorted(expected)[::-1][:3], abs=1e-3)


async def test_a_text_can_be_embedded_beside_running_jobs(model: BackendModel) -> None:
    async with running(model) as engine:
        job = engine.submit(request(model, max_tokens=60))
        vectors = []
        for at, text in enumerate(["a bee", "a bee", "the sky is blue"]):
            embedding = engine.embed(EmbeddingRequest(job_id=f"e{at}", prompt=prompt(model, text)))
            (event,) = await events_of(embedding)
            assert isinstance(event, Embedded)
            vectors.append(event.vector)
        assert isinstance((await events_of(job))[-1], Finished)
    assert np.linalg.norm(vectors[0]) == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)
    assert float(vectors[0] @ vectors[2]) < 0.999
