"""A simulated worker against arithmetic by hand, and against a slow one that goes step by step."""

import math
import random

import pytest

from skep.arena.fleet.model import WorkerModel, read_model
from skep.arena.fleet.replica import Job, PrefixCache, Replica
from skep.arena.fleet.requests import TracedRequest
from skep.errors import InvalidConfig

MODEL = WorkerModel(
    slots=2,
    step_s=0.01,
    sequence_s=0.002,
    prompt_token_s=0.001,
    chunk_tokens=100,
    overhead_s=0,
    cache_tokens=1000,
)


def request(prompt=100, output=11, at_s=0.0, blocks=()):
    return TracedRequest(
        at_s=at_s, prompt_tokens=prompt, output_tokens=output, blocks=blocks, block_tokens=50
    )


def run(requests, model=MODEL):
    replica, ended = Replica("r", model), []
    for number, one in enumerate(requests):
        ended += replica.advance(one.at_s)
        replica.add(Job(number, one))
    ended += replica.advance(1e6)
    return sorted(ended, key=lambda job: job.number)


def test_one_request_alone_takes_its_prompt_and_its_steps():
    (job,) = run([request()])
    assert job.first_s == pytest.approx(0.01 + 100 * 0.001)
    assert job.done_s == pytest.approx(job.first_s + 10 * 0.012)


def test_two_at_a_time_share_their_steps():
    first, second = run([request(prompt=1, output=101), request(prompt=1, output=101)])
    assert first.done_s - second.first_s == pytest.approx(100 * 0.014, rel=0.05)


def test_a_third_waits_for_a_slot():
    jobs = run([request(output=50)] * 3)
    assert jobs[2].first_s > min(jobs[0].done_s, jobs[1].done_s)


def test_a_single_token_ends_with_the_prompt():
    (job,) = run([request(output=1)])
    assert job.done_s == job.first_s


def test_a_prefix_at_hand_is_not_read_again():
    jobs = run([request(blocks=(1, 2)), request(at_s=10, blocks=(1, 2)), request(at_s=20, blocks=(1, 3))])
    assert [job.hit_tokens for job in jobs] == [0, 99, 50]
    assert jobs[1].first_s - 10 < jobs[2].first_s - 20 < jobs[0].first_s


def test_the_least_recent_prefix_goes_first():
    cache = PrefixCache(150)
    for block in (1, 2, 3):
        cache.keep(request(prompt=50, blocks=(block,)))
    cache.hit_tokens(request(prompt=60, blocks=(1,)))
    cache.keep(request(prompt=50, blocks=(4,)))
    assert [bool(cache.hit_tokens(request(prompt=60, blocks=(block,)))) for block in (1, 2, 3, 4)] == [
        True,
        False,
        True,
        True,
    ]


def test_a_crash_loses_what_was_there():
    replica = Replica("r", MODEL)
    jobs = [Job(number, request(output=1000)) for number in range(5)]
    for job in jobs:
        replica.add(job)
    replica.advance(0.5)
    assert {job.number for job in replica.crash()} == {0, 1, 2, 3, 4}
    assert replica.busy == 0
    assert not replica.up


def stepwise(requests, model):
    """Go step by step: each decodes a token for all, and reads a chunk of the first prompt."""
    now, pending, waiting = 0.0, [Job(n, one) for n, one in enumerate(requests)], []
    prompts, decoding, ended = [], [], []
    while pending or waiting or prompts or decoding:
        while pending and pending[0].request.at_s <= now:
            waiting.append(pending.pop(0))
        while waiting and len(prompts) + len(decoding) < model.slots:
            job = waiting.pop(0)
            job.prompt_left = job.request.prompt_tokens
            prompts.append(job)
        if not prompts and not decoding:
            now = pending[0].request.at_s
            continue
        chunk = min(model.chunk_tokens, prompts[0].prompt_left) if prompts else 0
        now += model.step_s + model.sequence_s * len(decoding) + model.prompt_token_s * chunk
        for entry in decoding:
            entry[1] -= 1
        for job in [job for job, left in decoding if left <= 0]:
            job.done_s = now
            ended.append(job)
        decoding = [entry for entry in decoding if entry[1] > 0]
        if prompts:
            prompts[0].prompt_left -= chunk
            if prompts[0].prompt_left <= 0:
                job = prompts.pop(0)
                job.first_s = now
                decoding.append([job, job.request.output_tokens - 1])
    return sorted(ended, key=lambda job: job.number)


@pytest.mark.parametrize("seed", range(8))
def test_jumping_from_change_to_change_agrees_with_going_step_by_step(seed):
    rng = random.Random(seed)
    model = WorkerModel(
        slots=4, step_s=0.008, sequence_s=0.001, prompt_token_s=0.0003, chunk_tokens=64, overhead_s=0
    )
    at_s, requests = 0.0, []
    for _ in range(150):
        requests.append(request(rng.randint(1, 400), rng.randint(2, 120), at_s))
        at_s += rng.expovariate(2.5)
    fast, slow = run(requests, model), stepwise(requests, model)
    assert len(fast) == len(slow) == 150
    for what in ("first_s", "done_s"):
        mean = [sum(getattr(job, what) - job.request.at_s for job in jobs) / 150 for jobs in (fast, slow)]
        assert mean[0] == pytest.approx(mean[1], rel=0.05)


def test_times_far_from_zero_still_end():
    requests = [request(prompt=300 + at, output=50 + at, at_s=3e7 + at / 7) for at in range(200)]
    assert all(math.isfinite(job.done_s) and job.done_s > 3e7 for job in run_late(requests))


def run_late(requests):
    replica, ended = Replica("r", MODEL), []
    for number, one in enumerate(requests):
        ended += replica.advance(one.at_s)
        replica.add(Job(number, one))
    ended += replica.advance(4e7)
    assert len(ended) == len(requests)
    return ended


@pytest.mark.parametrize(
    "change",
    [
        {"slots": 0},
        {"chunk_tokens": 0},
        {"step_s": -1.0},
        {"step_s": 0.0, "sequence_s": 0.0},
        {"start_s": math.inf},
    ],
)
def test_a_model_with_which_nothing_would_end_is_refused(change):
    with pytest.raises(InvalidConfig):
        WorkerModel(**change)


def test_a_model_file_that_is_none_is_told(tmp_path):
    path = tmp_path / "model.json"
    path.write_text('{"slots": "many"}')
    with pytest.raises(InvalidConfig):
        read_model(path)
