"""The fleet: admission, placement, crashes, and that every request is accounted for."""

import pytest

from skep.arena.fleet.arms import ARMS
from skep.arena.fleet.compare import compare
from skep.arena.fleet.model import WorkerModel
from skep.arena.fleet.requests import TracedRequest, generated_requests
from skep.arena.fleet.simulate import FleetPlan, FleetSimulation, simulate
from skep.errors.arena import UnknownName
from skep.policy.scaling import ScalingLimits

MODEL = WorkerModel(slots=2, prompt_token_s=0.001, cache_tokens=20_000)


def load(count=600, rate=3.0, seed=1, **more):
    return generated_requests(count, rate, seed, **more)


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("crash_every_s", [0.0, 40.0])
def test_every_request_is_served_or_turned_away_once(arm, crash_every_s):
    plan = FleetPlan(replicas=3, model=MODEL, queue_max=20, queue_s_max=5, crash_every_s=crash_every_s)
    result = simulate(load(), plan, arm, seed=3)
    assert result.arrived == 600
    assert result.completed + sum(result.turned_away.values()) == 600
    assert bool(result.crashes) == bool(crash_every_s)
    assert 0 <= result.busy_share <= 1


@pytest.mark.parametrize("arm", ARMS)
def test_one_seed_gives_one_result(arm):
    plan = FleetPlan(replicas=3, model=MODEL, crash_every_s=60)
    assert simulate(load(), plan, arm, 5) == simulate(load(), plan, arm, 5)


def test_no_replica_ever_holds_more_than_its_slots_and_one():
    simulation = FleetSimulation(FleetPlan(replicas=2, model=MODEL), "skep")
    for request in load(rate=20.0, count=200):
        simulation.feed(request)
        assert all(load.busy <= load.slots_total + 1 for load in simulation._members.loads())


def test_a_full_queue_turns_away_and_a_late_one_times_out():
    full = simulate(load(rate=50.0), FleetPlan(replicas=1, model=MODEL, queue_max=5), "skep")
    assert full.turned_away["queue_full"] > 100
    late = simulate(load(rate=50.0), FleetPlan(replicas=1, model=MODEL, queue_max=600, queue_s_max=1), "skep")
    assert late.turned_away["queue_timeout"] > 100


def test_a_higher_priority_displaces_a_lower_one_in_a_full_queue():
    requests = [TracedRequest(at_s=at / 1000, prompt_tokens=10, output_tokens=100) for at in range(20)]
    vip = TracedRequest(at_s=0.021, prompt_tokens=10, output_tokens=1, priority=9)
    result = simulate([*requests, vip], FleetPlan(replicas=1, model=MODEL, queue_max=3), "skep")
    assert result.turned_away == {"queue_full": 15}
    assert result.completed == 6


def test_prefix_affinity_finds_more_of_its_prompts_than_chance():
    plan = FleetPlan(replicas=8, model=WorkerModel(slots=2, prompt_token_s=0.001, cache_tokens=6_000))
    hits = {
        arm: simulate(load(2000, 4.0, shared_prefixes=40), plan, arm).prefix_hit_share
        for arm in ("skep", "skep-no-affinity", "random")
    }
    assert hits["skep"] > 1.3 * hits["skep-no-affinity"]
    assert hits["skep"] > 1.3 * hits["random"]


def test_two_choices_beat_chance_under_load():
    plan = FleetPlan(replicas=8, model=MODEL)
    ttft = {
        arm: simulate(load(2500, 11.0, prompt_tokens=100, output_tokens=60), plan, arm).ttft.p90
        for arm in ("skep-no-affinity", "random", "least-busy")
    }
    assert ttft["least-busy"] <= ttft["skep-no-affinity"] < ttft["random"]


def test_twice_the_speed_is_twice_the_load():
    slow, fast = (
        simulate(load(rate=1.0), FleetPlan(replicas=3, model=MODEL, speed=speed), "skep")
        for speed in (1.0, 2.0)
    )
    assert fast.busy_share > 1.5 * slow.busy_share
    assert fast.duration_s < 0.6 * slow.duration_s


def test_a_comparison_has_an_interval_for_each_measure():
    report = compare(
        lambda: load(200),
        FleetPlan(replicas=2, model=MODEL),
        trace="t",
        arms=("skep", "random"),
        seeds=(0, 1, 2),
    )
    assert [arm.policy for arm in report.arms] == ["skep", "random"]
    mean, half = report.arms[1].measures["ttft p99"]
    assert mean > 0
    assert half > 0
    assert report.to_markdown().count("\n") == 4


def test_an_unknown_policy_is_told():
    with pytest.raises(UnknownName):
        simulate([], FleetPlan(), "magic")


def test_no_requests_are_no_result_to_divide_by():
    result = simulate([], FleetPlan(), "skep")
    assert (result.arrived, result.goodput_per_s, result.ttft.p50) == (0, 0, 0)


# Scaling, by the fleet's own policy.

SCALED = FleetPlan(
    replicas=1,
    model=MODEL,
    queue_s_max=600,
    queue_max=2000,
    scaling=ScalingLimits(replicas_max=8, down_after_s=30),
)


def burst_then_quiet():
    yield from load(rate=6.0, count=400)
    for at in range(40):
        yield TracedRequest(at_s=200 + at * 10.0, prompt_tokens=50, output_tokens=20)


def test_a_fleet_grows_with_a_burst_and_shrinks_after_it():
    result = simulate(burst_then_quiet(), SCALED, "skep")
    assert result.replicas_most > 3
    assert result.scalings >= 2
    assert result.replicas_mean < 0.6 * result.replicas_most
    assert result.completed == result.arrived


def test_scaling_serves_sooner_than_one_and_cheaper_than_the_most():
    scaled = simulate(burst_then_quiet(), SCALED, "skep")
    one, most = (
        simulate(
            burst_then_quiet(),
            FleetPlan(replicas=count, model=MODEL, queue_s_max=600, queue_max=2000),
            "skep",
        )
        for count in (1, 8)
    )
    assert most.ttft.p90 < scaled.ttft.p90 < one.ttft.p90
    assert scaled.cost < 0.7 * most.cost
    assert (one.replicas_mean, one.replicas_most, one.scalings) == (1.0, 1, 0)


@pytest.mark.parametrize("arm", ARMS)
def test_a_scaled_fleet_that_crashes_accounts_for_every_request(arm):
    plan = FleetPlan(
        replicas=2,
        model=MODEL,
        queue_max=50,
        queue_s_max=20,
        crash_every_s=60,
        scaling=ScalingLimits(replicas_min=0, replicas_max=6, up_cooldown_s=5, down_after_s=10),
    )
    result = simulate(burst_then_quiet(), plan, arm, seed=2)
    assert result.completed + sum(result.turned_away.values()) == result.arrived == 440
    assert 0 <= result.busy_share <= 1
    assert result == simulate(burst_then_quiet(), plan, arm, seed=2)


def test_an_idle_fleet_goes_to_nothing_and_the_next_request_waits_for_a_cold_start():
    plan = FleetPlan(
        replicas=1,
        model=MODEL,
        scaling=ScalingLimits(replicas_min=0, replicas_max=2, down_after_s=20),
    )
    requests = [TracedRequest(at_s=at, prompt_tokens=10, output_tokens=5) for at in (0.0, 300.0)]
    result = simulate(requests, plan, "skep")
    assert result.completed == 2
    assert result.replicas_mean < 0.2
    assert MODEL.start_s < result.ttft.most < MODEL.start_s + plan.scale_every_s + 1
