"""The registry: leases, stale messages, a queen that was asleep, and what routes hope for."""

import pytest

from skep.errors.queen import NodeUnknown
from skep.lifecycle.node import NodeState
from skep.queen.registry import Registry
from skep.queen.routes import Hope, Routes
from skep.wire.node import OFFLINE_AFTER_S, Heartbeat, PoolReport, RegisterRequest, ReplicaReport


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(clock) -> Registry:
    return Registry(clock=clock)


def replica(name: str = "r0", instance: str = "i", state: str = "ready", **more) -> ReplicaReport:
    return ReplicaReport(
        replica_id=name,
        url="http://127.0.0.1:1",
        instance=instance,
        state=state,
        slots_total=4,
        slots_free=4,
        **more,
    )


def pool(*replicas: ReplicaReport, state: str = "ready", model: str = "m", **more) -> PoolReport:
    return PoolReport(pool_id="p", model=model, state=state, replicas=replicas, **more)


def register(registry: Registry, *pools: PoolReport, instance: str = "h", node: str = "n") -> None:
    request = RegisterRequest(node_id=node, address="http://x", version="1", instance=instance, pools=pools)
    registry.register(request)


def pass_time(registry: Registry, clock: Clock, seconds: float) -> None:
    """In steps, as a sweep that runs on time does."""
    until = clock.now_s + seconds
    while clock.now_s < until:
        clock.now_s = min(clock.now_s + 1, until)
        registry.sweep()


def test_a_silent_node_is_lost_and_its_next_heartbeat_brings_it_back(registry, clock):
    register(registry, pool(replica()))
    pass_time(registry, clock, OFFLINE_AFTER_S)
    assert registry.nodes["n"].state is NodeState.ALIVE
    pass_time(registry, clock, 1)
    assert registry.nodes["n"].state is NodeState.LOST
    assert Routes(registry).get("m").replicas == []
    registry.heartbeat("n", Heartbeat(instance="h", sequence=1, pools=(pool(replica()),)))
    assert registry.nodes["n"].state is NodeState.ALIVE


def test_a_queen_that_was_suspended_loses_nobody(registry, clock):
    register(registry)
    pass_time(registry, clock, 5)
    clock.now_s += 3600
    registry.sweep()
    assert registry.nodes["n"].state is NodeState.ALIVE


def test_a_heartbeat_of_an_unknown_node_or_another_instance_asks_to_register(registry):
    with pytest.raises(NodeUnknown):
        registry.heartbeat("n", Heartbeat(instance="h"))
    register(registry)
    with pytest.raises(NodeUnknown):
        registry.heartbeat("n", Heartbeat(instance="another"))


def test_an_older_heartbeat_is_a_sign_of_life_and_nothing_else(registry):
    register(registry)
    registry.heartbeat("n", Heartbeat(instance="h", sequence=2, pools=(pool(state="ready"),)))
    registry.heartbeat("n", Heartbeat(instance="h", sequence=1, pools=(pool(state="starting"),)))
    assert registry.nodes["n"].pools["p"].state == "ready"


def test_a_replicas_handle_outlives_heartbeats_but_not_its_process(registry):
    register(registry, pool(replica()))
    handle = registry.nodes["n"].replicas["p/r0"]
    registry.heartbeat("n", Heartbeat(instance="h", sequence=1, pools=(pool(replica()),)))
    assert registry.nodes["n"].replicas["p/r0"] is handle
    registry.heartbeat("n", Heartbeat(instance="h", sequence=2, pools=(pool(replica(instance="new")),)))
    assert registry.nodes["n"].replicas["p/r0"] is not handle


def test_only_a_ready_replica_on_a_living_node_gets_work(registry):
    states = ("ready", "suspect", "starting", "draining", "crashed", "stopping")
    register(registry, pool(*(replica(f"r{n}", state=state) for n, state in enumerate(states))))
    assert [one.replica_id for one in Routes(registry).get("m").replicas] == ["r0"]
    registry.cordon("n", is_cordoned=True)
    routes = Routes(registry)
    assert routes.get("m").replicas == []
    assert routes.get("m").hope is Hope.DOWN
    registry.cordon("n", is_cordoned=True)
    registry.cordon("n", is_cordoned=False)
    assert Routes(registry).get("m").hope is Hope.READY


@pytest.mark.parametrize(
    ("state", "replicas", "hope"),
    [
        ("ready", (replica(),), Hope.READY),
        ("ready", (replica(state="suspect"),), Hope.COMING),
        ("unready", (replica(state="crashed"),), Hope.COMING),
        ("unready", (replica(state="held"),), Hope.DOWN),
        ("unready", (), Hope.DOWN),
        ("provisioning", (), Hope.COMING),
        ("starting", (replica(state="starting"),), Hope.COMING),
        ("reloading", (), Hope.COMING),
        ("unloading", (), Hope.COMING),
        ("idle", (), Hope.ASLEEP),
        ("draining", (replica(),), Hope.DOWN),
        ("offline", (), Hope.DOWN),
    ],
)
def test_what_a_pool_promises(registry, state, replicas, hope):
    register(registry, pool(*replicas, state=state))
    assert Routes(registry).get("m").hope is hope


def test_an_alias_leads_to_its_model_and_a_name_proper_wins(registry):
    register(registry, pool(replica(), aliases=("nick", "b")))
    register(registry, PoolReport(pool_id="q", model="b", state="ready"), node="n2")
    routes = Routes(registry)
    assert routes.get("nick").model == "m"
    assert routes.get("b").model == "b"
    assert routes.models() == ["b", "m"]


def test_an_expected_node_is_hoped_for_until_it_speaks_or_its_time_is_over(registry, clock):
    request = RegisterRequest(node_id="n", address="a", version="1", pools=(pool(state="starting"),))
    registry.expect(request)
    assert Routes(registry).get("m").hope is Hope.COMING
    with pytest.raises(NodeUnknown):
        registry.heartbeat("n", Heartbeat())
    pass_time(registry, clock, OFFLINE_AFTER_S + 1)
    assert registry.nodes == {}
    registry.expect(request)
    register(registry, pool(replica()))
    assert registry.nodes["n"].state is NodeState.ALIVE


def test_leaving_forgets_and_a_second_leave_says_so(registry):
    register(registry)
    registry.leave("n")
    with pytest.raises(NodeUnknown):
        registry.leave("n")


def test_others_are_what_a_heartbeat_shows_above_our_own_requests(registry):
    register(registry, pool(replica()))
    handle = registry.nodes["n"].replicas["p/r0"]
    handle.take()
    busy = ReplicaReport(
        replica_id="r0",
        url="http://127.0.0.1:1",
        instance="i",
        state="ready",
        slots_total=4,
        slots_free=1,
        queue_depth=2,
    )
    registry.heartbeat("n", Heartbeat(instance="h", sequence=1, pools=(pool(busy),)))
    assert (handle.in_flight, handle.others, handle.load().busy) == (1, 4, 5)


def test_ejection_is_at_once_for_a_cut_after_some_for_answers_and_grows():
    registry = Registry()
    register(registry, pool(replica()))
    handle = registry.nodes["n"].replicas["p/r0"]
    assert handle.failed(10.0, is_cut=True)
    assert not handle.is_trusted(11.0)
    assert handle.is_trusted(12.0)
    handle.take()
    assert not handle.is_trusted(12.5)
    assert handle.failed(12.5, is_cut=True)
    handle.give_back()
    assert not handle.is_trusted(16.0)
    assert handle.is_trusted(16.5)
    handle.succeeded()
    assert [handle.failed(20.0, is_cut=False) for _ in range(5)] == [False] * 4 + [True]


def test_a_pool_that_served_a_moment_ago_is_hoped_for_while_its_hive_restarts_it(registry, clock):
    register(registry, pool(replica()))
    down = pool(state="unready", last_error="the worker ended with signal SIGKILL")
    registry.heartbeat("n", Heartbeat(instance="h", sequence=1, pools=(down,)))
    assert Routes(registry).get("m").hope is Hope.COMING
    pass_time(registry, clock, 20)
    for sequence in range(2, 6):
        registry.heartbeat("n", Heartbeat(instance="h", sequence=sequence, pools=(down,)))
        pass_time(registry, clock, 20)
    assert Routes(registry).get("m").hope is Hope.DOWN
