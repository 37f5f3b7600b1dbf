"""The engine step by step: what it does when the cache is full, a decode fails, or somebody leaves."""

from collections.abc import Callable
from typing import Any

import pytest

from skep.errors.runtime import (
    Cancelled,
    ConsumerStalled,
    DeadlineExceeded,
    DecodeFailed,
    DeviceError,
    DeviceOutOfMemory,
    EngineFault,
    InsufficientMemory,
    NoCacheSlot,
)
from skep.lifecycle.job import JobState
from skep.runtime.fake import FakeScript
from skep.runtime.integrity import violations
from skep.runtime.request import Constraint, Failed, Finished, Started, Token
from skep.runtime.sampling import SamplingParams

LONG = "the hive is full of bees and of honey and of wax, "
Benches = Callable[..., Any]


def stop_reason(events: list[Any]) -> str:
    assert isinstance(events[-1], Finished)
    return events[-1].stop_reason


# Prefill


def test_a_long_prompt_is_computed_in_chunks_while_others_decode_on(bench: Benches) -> None:
    it = bench(prefill_share=0.5)
    running = it.submit("a", max_tokens=40)
    it.step_until(lambda: running.tokens_out == 1)
    it.submit("b" * 60, max_tokens=1)
    before = running.tokens_out
    steps = 0
    while it.jobs[1].state is not JobState.DONE:
        it.step()
        steps += 1
    assert steps == 8  # 60 tokens in halves of 16 rows.
    assert running.tokens_out == before + steps


@pytest.mark.parametrize(("share", "steps"), [(0.0, 8), (0.5, 8), (1.0, 4)])
def test_the_share_decides_how_many_steps_a_prompt_takes_beside_others(
    bench: Benches, share: float, steps: int
) -> None:
    it = bench(prefill_share=share)
    running = it.submit("a", max_tokens=90)
    it.step_until(lambda: running.tokens_out == 1)
    arriving = it.submit("b" * 60, max_tokens=1)
    taken = 0
    while not arriving.is_over:
        it.step()
        taken += 1
    assert taken == steps


def test_the_others_tokens_are_told_before_a_prompt_is_computed(bench: Benches, monkeypatch: Any) -> None:
    it = bench(prefill_share=1.0)
    running = it.submit("a", max_tokens=40)
    it.step_until(lambda: running.tokens_out == 1)
    it.submit("b" * 40, max_tokens=1)
    seen = []
    monkeypatch.setattr(it.core, "_poll", lambda: seen.append((running.tokens_out, len(it.core.touched))))
    it.step()
    assert seen == [(2, 0)]


def test_a_prompt_that_is_cancelled_while_its_turn_comes_is_not_computed(
    bench: Benches, solo: Any, monkeypatch: Any
) -> None:
    it = bench(prefill_share=1.0)
    running = it.submit("a", max_tokens=40)
    it.step_until(lambda: running.tokens_out == 1)
    arriving = [it.submit("b" * 40, max_tokens=3), it.submit("c" * 40, max_tokens=3)]
    monkeypatch.setattr(it.core, "_poll", lambda: it.core.cancel(arriving[0]))
    steps = it.core.counters.steps
    it.step()
    assert it.core.counters.steps == steps + 1  # The others' tokens alone.
    it.finish()
    assert it.text(running) == solo(FakeScript(), running.request.prompt, 40)
    assert it.text(arriving[1]) == solo(FakeScript(), arriving[1].request.prompt, 3)


def test_alone_a_prompt_takes_whole_batches_whatever_the_share(bench: Benches) -> None:
    it = bench(prefill_share=0.0)
    job = it.submit("b" * 64, max_tokens=1)
    for _ in range(4):
        it.step()
    assert job.is_over


def test_short_prompts_do_not_wait_behind_a_long_one(bench: Benches) -> None:
    it = bench()
    long = it.submit("b" * 80, max_tokens=1)
    short = it.submit("a", max_tokens=1)
    it.step()
    it.step()
    assert short.is_over
    assert not long.is_over


# The end of a job


def test_an_end_token_finishes_and_is_not_counted(bench: Benches) -> None:
    it = bench(FakeScript(text="bee"))
    job = it.submit("?", max_tokens=50)
    it.finish()
    assert it.text(job) == "bee"
    assert stop_reason(it.events[job.id]) == "end_of_text"
    assert it.events[job.id][-1].tokens_out == 3


def test_ignoring_the_end_goes_on(bench: Benches) -> None:
    it = bench(FakeScript(text="bee"))
    job = it.submit("?", max_tokens=20, ignore_end=True)
    it.finish()
    assert job.tokens_out == 20


def test_a_stop_string_that_the_last_token_completes_wins_over_the_limit(bench: Benches) -> None:
    it = bench(FakeScript(text="the queen"))
    job = it.submit("?", max_tokens=5, stop=(" q",))
    it.finish()
    assert it.text(job) == "the"
    assert stop_reason(it.events[job.id]) == "stop_sequence"


def test_text_held_back_for_a_stop_string_is_told_at_the_end(bench: Benches) -> None:
    it = bench(FakeScript(text="the queen"))
    job = it.submit("?", max_tokens=6, stop=("een",))
    it.finish()
    assert it.text(job) == "the qu"
    job = it.submit("??", max_tokens=7, stop=("een",))
    it.finish()
    assert it.text(job) == "the que"
    tokens = [event for event in it.events[job.id] if isinstance(event, Token)]
    assert tokens[-1] == Token(text="e", index=6, tokens=1)


def test_an_unfinished_character_becomes_one_event_when_it_is_whole(bench: Benches) -> None:
    it = bench(FakeScript(text="é🐝!"))
    job = it.submit("?", max_tokens=50)
    it.finish()
    tokens = [event for event in it.events[job.id] if isinstance(event, Token)]
    assert [(token.text, token.index, token.tokens) for token in tokens] == [
        ("é", 0, 2),
        ("🐝", 2, 4),
        ("!", 6, 1),
    ]


def test_with_log_probabilities_every_token_has_its_event(bench: Benches) -> None:
    it = bench(FakeScript(text="é🐝!"))
    job = it.submit("?", max_tokens=4, logprobs=1)
    it.finish()
    tokens = [event for event in it.events[job.id] if isinstance(event, Token)]
    assert [(token.text, token.index, token.tokens) for token in tokens] == [
        ("", 0, 1), ("é", 1, 1), ("", 2, 1), ("", 3, 1), ("�", 4, 0),
    ]  # fmt: skip
    assert all(token.logprob.token == token.top[0].token for token in tokens[:4])


def test_a_complete_constraint_ends_the_job(bench: Benches) -> None:
    it = bench()
    job = it.submit("?", max_tokens=50, constraint=Constraint(kind="regex", text="ab{2}"))
    it.finish()
    assert it.text(job) == "abb"
    assert stop_reason(it.events[job.id]) == "end_of_text"


# Fairness


def test_clients_are_admitted_in_turn(bench: Benches) -> None:
    it = bench(sequences=1)
    jobs = [it.submit(f"{at}", client="busy", max_tokens=1) for at in range(4)]
    jobs.append(it.submit("x", client="rare", max_tokens=1))
    order = []
    while it.core.jobs:
        it.step()
        order += [job.id for job in jobs if job.is_over and job.id not in order]
    assert order == ["job-0", "job-4", "job-1", "job-2", "job-3"]


# The prefix cache


def test_a_conversation_goes_on_in_the_slot_that_has_it(bench: Benches) -> None:
    it = bench()
    first = it.submit(LONG, max_tokens=4)
    it.finish()
    tokens = (*first.request.prompt, *it.text(first).encode())
    second = it.submit((*tokens, *b" and then?"), max_tokens=1)
    it.finish()
    assert it.events[second.id][0].cached_tokens == len(tokens) - 1


def test_a_slot_s_long_tail_is_spared_by_copying_the_beginning(bench: Benches) -> None:
    it = bench()
    it.submit("the hive " + "x" * 60, max_tokens=1)
    it.finish()
    other = it.submit("the hive is empty", max_tokens=1)
    it.finish()
    again = it.submit("the hive " + "x" * 60, max_tokens=1)
    it.finish()
    assert it.events[other.id][0].cached_tokens == 9
    assert it.events[again.id][0].cached_tokens == 68


def test_in_deterministic_mode_reuse_ends_at_a_border(bench: Benches) -> None:
    it = bench(deterministic=True, chunk_rows=8)
    it.submit("the hive is full of bees", max_tokens=9)
    it.finish()
    for prompt, cached in (("the hive is full of bees and more", 24), ("the hive is full of ants", 16)):
        job = it.submit(prompt, max_tokens=1)
        it.finish()
        assert it.events[job.id][0].cached_tokens == cached
    exact = it.submit("the hive is full", max_tokens=1)
    it.finish()
    assert it.events[exact.id][0].cached_tokens == 8


def test_prompts_that_begin_alike_and_come_together_are_computed_once(bench: Benches, solo: Any) -> None:
    it = bench()
    jobs = [it.submit(LONG + end, max_tokens=5) for end in ("a", "b", "c")]
    it.finish()
    cached = [it.events[job.id][0].cached_tokens for job in jobs]
    assert cached == [0, len(LONG), len(LONG)]
    for job in jobs:
        assert it.text(job) == solo(FakeScript(), job.request.prompt, 5)


@pytest.mark.parametrize("leaves", ["cancel", "preempt"])
def test_a_prompt_whose_donor_leaves_takes_what_there_is_and_goes_on(
    bench: Benches, solo: Any, leaves: str
) -> None:
    it = bench(FakeScript(cache_cells=0 if leaves == "cancel" else 75))
    first, second = it.submit(LONG + "a" * 20, max_tokens=5), it.submit(LONG + "b", max_tokens=5)
    it.step()
    it.step()
    assert it.read(second) == []
    if leaves == "cancel":
        it.core.cancel(first)
    it.finish()
    assert it.text(second) == solo(FakeScript(), second.request.prompt, 5)
    if leaves == "cancel":
        assert it.events[second.id][0].cached_tokens == 32
    else:
        assert it.text(first) == solo(FakeScript(), first.request.prompt, 5)


def test_short_prompts_do_not_wait_for_each_other(bench: Benches) -> None:
    it = bench()
    jobs = [it.submit("the hive " + end, max_tokens=1) for end in ("aaaaaaaaaaaa", "bbbbbbbbbbbb")]
    it.step()
    assert all(len(it.read(job)) >= 1 for job in jobs)
    it.finish()


# Backpressure


def test_a_full_outbox_pauses_and_half_of_it_read_resumes(bench: Benches) -> None:
    it = bench(events_max=4)
    job = it.submit("a", max_tokens=30)
    while it.step():
        pass
    assert job.state is JobState.PAUSED
    assert len(job.outbox) == 4
    job.outbox.take_one()
    assert job.state is JobState.PAUSED
    job.outbox.take_one()
    assert job.state is JobState.DECODING
    it.finish()
    assert job.state is JobState.DONE


def test_a_reader_that_stays_behind_is_cancelled_after_the_stated_time(bench: Benches) -> None:
    it = bench(events_max=4, stall_s=30.0)
    job = it.submit("a", max_tokens=30, deadline_s=1000.0)
    it.step_until(lambda: job.state is JobState.PAUSED)
    it.now += 29.0
    it.step()
    assert not job.is_over
    it.now += 1.1
    it.step()
    assert isinstance(it.read(job)[-1].error, ConsumerStalled)
    assert job.state is JobState.CANCELLED


def test_a_paused_job_gives_its_slot_to_one_that_waits_and_goes_on_later(bench: Benches, solo: Any) -> None:
    it = bench(sequences=1, events_max=4)
    slow = it.submit("a", max_tokens=30)
    it.step_until(lambda: slow.state is JobState.PAUSED)
    waiting = it.submit("b", max_tokens=3)
    it.step()
    assert waiting.state is JobState.QUEUED, "it may be back in a moment"
    it.now += 0.5
    it.step_until(lambda: waiting.is_over)
    assert slow.state is JobState.PAUSED
    it.finish()
    assert it.text(slow) == solo(FakeScript(), slow.request.prompt, 30)
    assert it.text(waiting) == solo(FakeScript(), waiting.request.prompt, 3)


@pytest.mark.parametrize("end", ["cancel", "stall"])
def test_a_paused_job_without_a_slot_can_end(bench: Benches, end: str) -> None:
    it = bench(sequences=1, events_max=4, stall_s=5.0)
    slow = it.submit("a", max_tokens=30)
    it.step_until(lambda: slow.state is JobState.PAUSED)
    it.submit("b", max_tokens=30)
    it.now += 0.5
    it.step_until(lambda: bool(it.core.roster.parked))
    if end == "cancel":
        it.core.cancel(slow)
    else:
        it.now += 5.0
        it.step()
    assert isinstance(it.read(slow)[-1].error, Cancelled if end == "cancel" else ConsumerStalled)
    assert it.core.roster.parked == []
    it.finish()


def test_in_deterministic_mode_a_paused_job_keeps_its_slot(bench: Benches) -> None:
    it = bench(sequences=1, events_max=4, deterministic=True, chunk_rows=8)
    slow = it.submit("a", max_tokens=30)
    it.step_until(lambda: slow.state is JobState.PAUSED)
    waiting = it.submit("b", max_tokens=3)
    it.now += 5.0
    it.step()
    assert waiting.state is JobState.QUEUED
    it.finish()


# Cancelling and deadlines


def phases(it: Any) -> dict[str, Any]:
    """Return one job in each state in which it can be cancelled."""
    paused = it.submit("p", max_tokens=60)
    it.step_until(lambda: paused.state is JobState.PAUSED)
    decoding = it.submit("d", max_tokens=60)
    it.step_until(lambda: decoding.tokens_out == 1)
    prefill = it.submit("f" * 90, max_tokens=5)
    queued = it.submit("q", max_tokens=5)
    it.step()
    found = {"paused": paused, "decoding": decoding, "prefill": prefill, "queued": queued}
    assert {name: job.state.value for name, job in found.items()} == {name: name for name in found}
    return found


@pytest.mark.parametrize("phase", ["queued", "prefill", "decoding", "paused"])
def test_a_cancel_in_any_phase_frees_the_slot_and_leaves_the_others(bench: Benches, phase: str) -> None:
    it = bench(events_max=6)
    jobs = phases(it)
    it.core.cancel(jobs[phase])
    assert violations(it.core) == []
    assert isinstance(it.read(jobs[phase])[-1].error, Cancelled)
    it.core.cancel(jobs[phase])
    it.finish()
    assert it.core.counters.cancelled == 1
    assert it.core.counters.finished == 3
    assert all(slot.sequence is None for slot in it.core.roster.slots)


@pytest.mark.parametrize("phase", ["queued", "prefill", "decoding", "paused"])
def test_a_deadline_in_any_phase_is_typed(bench: Benches, phase: str) -> None:
    it = bench(events_max=6)
    jobs = phases(it)
    jobs[phase].deadline_at = it.now + 5.0
    it.now += 5.0
    it.step()
    assert isinstance(it.read(jobs[phase])[-1].error, DeadlineExceeded)
    assert jobs[phase].state is JobState.TIMED_OUT


def test_an_interrupted_prefill_is_repaired_and_the_neighbour_gets_on(bench: Benches, solo: Any) -> None:
    it = bench(prefill_share=1.0)
    neighbour = it.submit("n", max_tokens=60)
    it.step_until(lambda: neighbour.tokens_out == 3)
    arriving = it.submit("f" * 90, max_tokens=3)
    for _ in range(6):
        before = neighbour.tokens_out
        it.core.session.interrupt()
        it.step()  # Aborted.
        it.step()  # The neighbour's own.
        assert neighbour.tokens_out == before + 1
    it.finish()
    assert it.core.counters.interrupted == 6
    assert it.text(neighbour) == solo(FakeScript(), neighbour.request.prompt, 60)
    assert it.text(arriving) == solo(FakeScript(), arriving.request.prompt, 3)


def test_after_an_interrupt_deterministic_mode_gives_the_same_logits(bench: Benches) -> None:
    def last_logits(*, interrupts: int) -> bytes:
        it = bench(FakeScript(batch_noise=True), deterministic=True, chunk_rows=8)
        job = it.submit("f" * 61, max_tokens=3)
        for _ in range(interrupts):
            it.core.session.interrupt()
            it.step()
        it.step_until(lambda: job.tokens_out == 2)
        return it.core.session.logits(0).tobytes()

    assert last_logits(interrupts=0) == last_logits(interrupts=3)


# Faults


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("decode_failed", DecodeFailed),
        ("device_out_of_memory", DeviceOutOfMemory),
        ("device_error", DeviceError),
        ("invalid_batch", None),
    ],
)
def test_a_failed_decode_fails_its_jobs_typed_and_spares_the_queue(
    bench: Benches, code: str, error: type[Exception] | None
) -> None:
    it = bench(FakeScript(fail_decode=code, fail_decode_after=3))
    victims = [it.submit(f"{at}", max_tokens=9) for at in range(3)]
    queued = it.submit("later", max_tokens=9)
    it.finish()
    for job in victims:
        end = it.events[job.id][-1]
        assert isinstance(end, Failed)
        assert end.error.code == code
        assert error is None or isinstance(end.error, error)
        assert job.state is JobState.FAILED
    assert isinstance(it.events[queued.id][-1], Finished)
    assert it.core.counters.reopened == 1
    assert it.core.fault is None


def test_decodes_that_fail_again_and_again_end_the_engine(bench: Benches) -> None:
    it = bench(FakeScript(fail_decode_after=2, fail_decode_times=100), faults_max=2)
    jobs = [it.submit(f"{at}", max_tokens=9) for at in range(9)]
    it.finish()
    assert isinstance(it.core.fault, EngineFault)
    assert isinstance(it.events[jobs[-1].id][-1].error, EngineFault)
    late = it.submit("late")
    it.finish()
    assert isinstance(it.events[late.id][-1].error, EngineFault)


def test_a_session_that_cannot_be_opened_again_ends_the_engine(bench: Benches, monkeypatch: Any) -> None:
    it = bench(FakeScript(fail_decode_after=2))
    job = it.submit("a", max_tokens=9)

    def refuse(_: Any) -> None:
        raise InsufficientMemory("nothing left")

    monkeypatch.setattr(it.model, "open_session", refuse)
    it.finish()
    assert isinstance(it.events[job.id][-1].error, DecodeFailed)
    assert isinstance(it.core.fault, EngineFault)
    assert isinstance(it.core.fault.cause, InsufficientMemory)


def test_idle_prefixes_give_way_when_the_cache_is_full(bench: Benches, solo: Any) -> None:
    script = FakeScript(cache_cells=100)
    it = bench(script)
    it.submit("i" * 60, max_tokens=1)
    it.finish()
    job = it.submit("j" * 60, max_tokens=9)
    it.finish()
    assert it.text(job) == solo(script, job.request.prompt, 9)
    assert it.core.counters.preempted == 0


def test_the_youngest_job_gives_way_and_loses_nothing(bench: Benches, solo: Any) -> None:
    script = FakeScript(cache_cells=100)
    it = bench(script)
    jobs = [it.submit(f"{at}" * 25, max_tokens=30) for at in range(3)]
    it.finish()
    assert it.core.counters.preempted > 0
    for job in jobs:
        assert it.text(job) == solo(script, job.request.prompt, 30)
        assert sum(isinstance(event, Started) for event in it.events[job.id]) == 1


def test_a_job_that_fills_the_cache_alone_fails_typed(bench: Benches) -> None:
    it = bench(FakeScript(cache_cells=40))
    job = it.submit("j" * 60, max_tokens=9)
    it.finish()
    assert isinstance(it.events[job.id][-1].error, NoCacheSlot)


def test_a_preempted_job_can_be_cancelled(bench: Benches) -> None:
    it = bench(FakeScript(cache_cells=60))
    jobs = [it.submit(f"{at}" * 20, max_tokens=60) for at in range(2)]
    it.step_until(lambda: bool(it.core.roster.preempted))
    for job in jobs:
        it.core.cancel(job)
    assert violations(it.core) == []
    assert it.core.roster.preempted == []


def test_a_cache_that_cannot_drop_a_tail_is_computed_anew(
    bench: Benches, solo: Any, monkeypatch: Any
) -> None:
    """As recurrent models do it: only whole sequences can be removed."""
    it = bench(prefill_share=1.0)
    session = it.core.session
    remove = session.sequence_remove

    def whole_only(sequence: int, start: int, end: int) -> bool:
        length = session.sequence_position_max(sequence) + 1
        return start >= length or (start == 0 and remove(sequence, start, end))

    monkeypatch.setattr(session, "sequence_remove", whole_only)
    first = it.submit(LONG, max_tokens=9)
    it.step_until(lambda: first.tokens_out == 3)
    session.interrupt()
    it.finish()
    again = it.submit(LONG, max_tokens=9)
    it.finish()
    for job in (first, again):
        assert it.text(job) == solo(FakeScript(), job.request.prompt, 9)


def test_a_job_whose_sampling_the_backend_refuses_fails_alone(bench: Benches) -> None:
    it = bench()
    good = it.submit("a", max_tokens=9)
    bad = it.submit("b", max_tokens=9, sampling=SamplingParams(temperature=99.0, seed=1))
    it.finish()
    assert it.events[bad.id][-1].error.code == "invalid_sampling"
    assert isinstance(it.events[good.id][-1], Finished)


def test_a_paused_job_that_loses_its_cache_room_waits_for_its_reader_without_a_slot(
    bench: Benches, solo: Any
) -> None:
    script = FakeScript(cache_cells=60)
    it = bench(script, events_max=4)
    runs = it.submit("r" * 20, max_tokens=35)
    slow = it.submit("s" * 20, max_tokens=20)
    it.step_until(lambda: slow.state is JobState.PAUSED)
    it.step_until(lambda: bool(it.read(runs)) and bool(it.core.roster.parked), steps_max=100)
    assert slow.state is JobState.PAUSED
    assert len(slow.outbox) == 4
    it.finish()
    for job in (runs, slow):
        assert it.text(job) == solo(script, job.request.prompt, job.max_tokens)


def test_the_end_is_told_when_the_engine_is_idle_and_closed(bench: Benches) -> None:
    it = bench()
    job = it.submit("a", max_tokens=90)
    it.step()
    it.core.close(DecodeFailed("over"))
    assert isinstance(it.read(job)[-1].error, DecodeFailed)
    assert not it.core.step()
