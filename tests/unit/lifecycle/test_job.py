"""The whole state × event product of a job's life."""

from itertools import product

import pytest

from skep.errors.lifecycle import IllegalTransition
from skep.lifecycle.job import JOB, JobEvent, JobState, advance

LEGAL = {
    "queued": {"admitted": "prefill", "cancel": "cancelled", "deadline": "timed_out", "fault": "failed"},
    "prefill": {
        "first_token": "decoding",
        "finished": "done",
        "preempted": "queued",
        "cancel": "cancelled",
        "deadline": "timed_out",
        "fault": "failed",
    },
    "decoding": {
        "finished": "done",
        "consumer_stalled": "paused",
        "preempted": "queued",
        "cancel": "cancelled",
        "deadline": "timed_out",
        "fault": "failed",
    },
    "paused": {
        "consumer_back": "decoding",
        "stall_deadline": "cancelled",
        "preempted": "queued",
        "cancel": "cancelled",
        "deadline": "timed_out",
        "fault": "failed",
    },
}


@pytest.mark.parametrize(("state", "event"), list(product(JobState, JobEvent)), ids=lambda value: value.value)
def test_every_event_in_every_state_does_what_the_table_says(state: JobState, event: JobEvent) -> None:
    target = LEGAL.get(state.value, {}).get(event.value)
    if target is not None:
        assert advance(state, event) == target
        return
    with pytest.raises(IllegalTransition) as caught:
        advance(state, event)
    assert (caught.value.state, caught.value.event) == (state, event)


def test_the_terminal_states_are_the_four_ends() -> None:
    assert {"done", "cancelled", "timed_out", "failed"} == JOB.terminal


def test_every_live_state_can_be_cancelled_times_out_and_can_fail() -> None:
    for state in set(JobState) - JOB.terminal:
        assert {advance(state, event) for event in (JobEvent.CANCEL, JobEvent.DEADLINE, JobEvent.FAULT)} == {
            "cancelled",
            "timed_out",
            "failed",
        }
