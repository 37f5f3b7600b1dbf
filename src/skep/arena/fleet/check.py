"""How far a worker's model is off: the same load in reality and simulated, round by round."""

import random
from collections.abc import Sequence
from statistics import median
from typing import Final

import msgspec

from skep.arena.fleet.metrics import FleetResult, Spread, spread_of
from skep.arena.fleet.model import WorkerModel
from skep.arena.fleet.requests import TracedRequest
from skep.arena.fleet.simulate import FleetPlan, simulate

CHECK_LOAD: Final = 0.4
"""The share of its capacity at which a worker's model is checked."""
FITTED: Final = ("step_s", "sequence_s", "prompt_token_s", "overhead_s")


class Timing(msgspec.Struct, frozen=True):
    """One real request: seconds from its sending to its first token and to its end, and how many tokens came."""

    first_s: float
    done_s: float
    tokens: int


class Error(msgspec.Struct, frozen=True, kw_only=True):
    """One measure in the middle round, real and simulated; the relative error there, and in the extreme rounds."""

    real_s: float
    simulated_s: float
    middle: float
    least: float
    most: float


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """Reality and simulation of the same loads. `errors` are by measure, as "first token, mean"."""

    rounds: int
    requests: int
    rate_per_s: float
    errors: dict[str, Error]
    simulated: tuple[FleetResult, ...]


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """A fitted model and its error.

    `speed_spread` is by how much the rounds' own fits of a step differ: so much is the machine's unrest, which no model knows.
    """

    model: WorkerModel
    check: Check
    speed_spread: float


def median_model(fitted: Sequence[WorkerModel]) -> WorkerModel:
    """Return the model of the median numbers."""
    return msgspec.structs.replace(
        fitted[0], **{name: median(getattr(one, name) for one in fitted) for name in FITTED}
    )


def speed_spread(fitted: Sequence[WorkerModel]) -> float:
    """Return how far the fits' full steps lie apart, relative to the middle one."""
    steps = [one.decode_step_s(one.slots) for one in fitted]
    return (max(steps) - min(steps)) / median(steps)


def check_load(context: int, model: WorkerModel, count: int, seed: int) -> list[TracedRequest]:
    """Return requests at random times that load a worker to `CHECK_LOAD` of what it can do."""
    rng = random.Random(seed)  # noqa: S311 - a load, seeded on purpose
    prompt, output = max(context // 8, 8), max(context // 8, 8)
    # Prompts are read one after the other; tokens are written for all slots at a time.
    busy_s = prompt * model.prompt_token_s + output * model.decode_step_s(model.slots) / model.slots
    rate = CHECK_LOAD / busy_s
    found, at_s = [], 0.0
    for _ in range(count):
        sizes = (rng.randint(prompt // 2, prompt * 3 // 2), rng.randint(output // 2, output * 3 // 2))
        found.append(TracedRequest(at_s=at_s, prompt_tokens=sizes[0], output_tokens=sizes[1]))
        at_s += rng.expovariate(rate)
    return found


def check_model(
    model: WorkerModel, played: Sequence[tuple[Sequence[TracedRequest], Sequence[Timing]]]
) -> Check:
    """Simulate each round's load, and compare it with what really happened."""
    simulated, measures = [], dict[str, list[tuple[float, float]]]()
    for requests, real in played:
        plan = FleetPlan(replicas=1, model=model, queue_max=len(requests), queue_s_max=3600.0)
        simulated.append(simulate(requests, plan, "skep"))
        pairs = {
            "first token": (spread_of([one.first_s for one in real]), simulated[-1].ttft),
            "whole request": (spread_of([one.done_s for one in real]), simulated[-1].total),
        }
        for what, (really, virtually) in pairs.items():
            for name, value in _numbers(really).items():
                measures.setdefault(f"{what}, {name}", []).append((value, _numbers(virtually)[name]))
    span_s = sum(requests[-1].at_s - requests[0].at_s for requests, _ in played)
    count = sum(len(requests) for requests, _ in played)
    return Check(
        rounds=len(played),
        requests=count,
        rate_per_s=count / max(span_s, 1e-9),
        errors={name: _error(found) for name, found in measures.items()},
        simulated=tuple(simulated),
    )


def _numbers(spread: Spread) -> dict[str, float]:
    return {"median": spread.p50, "mean": spread.mean, "p90": spread.p90}


def _error(pairs: Sequence[tuple[float, float]]) -> Error:
    errors = [(simulated_s - real_s) / max(real_s, 1e-9) for real_s, simulated_s in pairs]
    return Error(
        real_s=median(real_s for real_s, _ in pairs),
        simulated_s=median(simulated_s for _, simulated_s in pairs),
        middle=median(errors),
        least=min(errors),
        most=max(errors),
    )
