"""The error of a worker's model: nothing where reality is the simulation, and what is known where it is not."""

import pytest

from skep.arena.fleet.check import Timing, check_load, check_model, median_model, speed_spread
from skep.arena.fleet.model import WorkerModel
from skep.arena.fleet.replica import Job, Replica
from skep.arena.fleet.requests import TracedRequest

MODEL = WorkerModel(slots=2, step_s=0.01, sequence_s=0.002, prompt_token_s=0.0005, overhead_s=0.004)


def reality(model: WorkerModel, requests: list[TracedRequest]) -> list[Timing]:
    """Return what a worker that is exactly this model would be timed at."""
    replica, jobs = Replica("real", model), []
    for number, request in enumerate(requests):
        replica.advance(request.at_s)
        jobs.append(Job(number, request))
        replica.add(jobs[-1])
    replica.advance(1e9)
    return [
        Timing(job.first_s - job.request.at_s, job.done_s - job.request.at_s, job.request.output_tokens)
        for job in jobs
    ]


def played(real: WorkerModel, rounds: int) -> list[tuple[list[TracedRequest], list[Timing]]]:
    loads = [check_load(256, MODEL, 20, seed) for seed in range(rounds)]
    return [(load, reality(real, load)) for load in loads]


def test_a_worker_that_is_its_model_has_no_error() -> None:
    found = check_model(MODEL, played(MODEL, 3))
    assert (found.rounds, found.requests) == (3, 60)
    for name, error in found.errors.items():
        assert error.least == pytest.approx(0, abs=0.02), name
        assert error.most == pytest.approx(0, abs=0.02), name


def test_a_worker_twice_as_fast_as_its_model_is_told_so() -> None:
    fast = WorkerModel(slots=2, step_s=0.005, sequence_s=0.001, prompt_token_s=0.00025, overhead_s=0.002)
    errors = check_model(MODEL, played(fast, 3)).errors
    assert all(error.middle > 0.9 for error in errors.values())


def test_one_slow_round_moves_neither_the_model_nor_the_middle() -> None:
    slow = WorkerModel(slots=2, step_s=0.05, sequence_s=0.01, prompt_token_s=0.0025, overhead_s=0.02)
    model = median_model([MODEL, slow, MODEL])
    assert model == MODEL
    errors = check_model(model, [*played(MODEL, 2), *played(slow, 1)]).errors
    assert abs(errors["whole request, mean"].middle) < 0.02
    assert errors["whole request, mean"].least < -0.5
    assert speed_spread([MODEL, slow, MODEL]) == pytest.approx(4.0)
