"""The four tables over their whole state × event product, against the specification written out a second time."""

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.errors.lifecycle import IllegalTransition
from skep.lifecycle.job import JOB
from skep.lifecycle.node import NODE
from skep.lifecycle.pool import POOL
from skep.lifecycle.replica import REPLICA
from skep.lifecycle.table import Table

SPEC = {
    "replica": """
        planned: spawned starting, cannot_start failed
        starting: proved ready, exited crashed, start_timed_out crashed, device_error crashed, stop stopping
        ready: probe_missed suspect, exited crashed, device_error crashed, drain draining, stop stopping
        suspect: probe_answered ready, probes_exhausted crashed, exited crashed, device_error crashed, drain draining, stop stopping
        draining: idle stopping, deadline stopping, stop stopping, exited stopping, device_error stopping
        stopping: reaped stopped, reap_timed_out failed
        crashed: restart starting, breaker_open held, stop stopping
        held: trial starting, reset starting, stop stopped
        stopped:
        failed:
    """,
    "pool": """
        declared: preload provisioning, retire offline
        provisioning: provisioned starting, provision_failed unready, does_not_fit unready, drain draining, retire draining
        starting: replica_ready ready, replicas_exhausted unready, drain draining, retire draining
        ready: replicas_lost unready, drain draining, retire draining, reload reloading, idle unloading
        unready: retry provisioning, replica_ready ready, drain draining, retire draining, reload reloading
        reloading: reloaded ready, rolled_back ready, reload_failed unready, drain draining, retire draining
        unloading: unloaded idle
        idle: wanted provisioning, retire offline
        draining: drained offline
        offline: preload provisioning
    """,
    "node": """
        joining: registered alive, leave left
        alive: lease_lost lost, cordon cordoned, leave left
        lost: lease_renewed alive, cordon cordoned, leave left
        cordoned: uncordon alive, leave left
        left:
    """,
}
TABLES: list[Table] = [REPLICA, POOL, NODE, JOB]


def written(table: Table) -> dict[tuple[str, str], str]:
    rows = (line.strip().partition(":") for line in SPEC[table.name].strip().splitlines())
    return {
        (state, pair.split()[0]): pair.split()[1]
        for state, _, rest in rows
        for pair in rest.split(",")
        if pair.strip()
    }


@pytest.mark.parametrize("table", [REPLICA, POOL, NODE], ids=lambda table: table.name)
def test_every_pair_of_state_and_event_does_what_the_specification_says(table: Table) -> None:
    expected = written(table)
    for state, event in product(table.states, table.events):
        if (state, event) in expected:
            assert table.can(state, event)
            assert table.advance(state, event) == expected[state, event]
        else:
            assert not table.can(state, event)
            with pytest.raises(IllegalTransition) as caught:
                table.advance(state, event)
            assert (caught.value.machine, caught.value.state, caught.value.event) == (
                table.name,
                state,
                event,
            )


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_state_can_be_reached_and_every_event_is_used(table: Table) -> None:
    seen, open_ = {table.initial}, [table.initial]
    while open_:
        state = open_.pop()
        for (source, _), target in table.transitions.items():
            if source == state and target not in seen:
                seen.add(target)
                open_.append(target)
    assert seen == set(table.states)
    assert {event for _, event in table.transitions} == set(table.events)


def test_terminal_states_are_the_ones_that_are_meant() -> None:
    assert {state.value for state in REPLICA.terminal} == {"stopped", "failed"}
    assert {state.value for state in NODE.terminal} == {"left"}
    assert POOL.terminal == frozenset()
    assert {state.value for state in JOB.terminal} == {"done", "cancelled", "timed_out", "failed"}


@given(st.lists(st.sampled_from(list(REPLICA.events)), max_size=60))
def test_a_replica_never_serves_again_after_it_stopped(events: list) -> None:
    state, stopped = REPLICA.initial, False
    for event in events:
        if REPLICA.can(state, event):
            state = REPLICA.advance(state, event)
            assert not stopped
        stopped = stopped or state in REPLICA.terminal


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_the_diagram_holds_every_arrow_once(table: Table) -> None:
    drawn = [
        (source, event, target)
        for source, target, events in re.findall(
            r"^    (\w+) --> (\w+): (.+)$", table.diagram(), re.MULTILINE
        )
        for event in events.split(", ")
    ]
    assert sorted(drawn) == sorted((s.value, e.value, t.value) for (s, e), t in table.transitions.items())
