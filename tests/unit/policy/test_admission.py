"""Admission: bounded, in order, by priority and deadline."""

from hypothesis import given
from hypothesis import strategies as st

from skep.policy.admission import (
    RETRY_AFTER_S_MAX,
    AdmissionQueue,
    Answer,
    Ticket,
    retry_after_s,
    smoothed_service_s,
)


def drained(queue: AdmissionQueue) -> list[int]:
    numbers = []
    while (ticket := queue.head()) is not None:
        numbers.append(ticket.number)
        queue.withdraw(ticket.number)
    return numbers


def test_first_come_first_served_within_a_priority():
    queue = AdmissionQueue(8)
    for number, priority in enumerate([0, 1, 0, 1]):
        queue.offer(Ticket(number=number, priority=priority), now_s=0)
    assert drained(queue) == [1, 3, 0, 2]


def test_a_full_queue_refuses_an_equal_and_is_not_longer_after():
    queue = AdmissionQueue(1)
    assert queue.offer(Ticket(number=1), now_s=0).answer is Answer.QUEUED
    assert queue.offer(Ticket(number=2), now_s=0).answer is Answer.FULL
    assert len(queue) == 1


def test_a_higher_priority_displaces_the_youngest_of_the_lowest():
    queue = AdmissionQueue(2)
    queue.offer(Ticket(number=1), now_s=0)
    queue.offer(Ticket(number=2), now_s=0)
    offer = queue.offer(Ticket(number=3, priority=5), now_s=0)
    assert (offer.answer, offer.displaced.number) == (Answer.QUEUED, 2)
    assert drained(queue) == [3, 1]


def test_a_length_of_zero_queues_nobody():
    assert AdmissionQueue(0).offer(Ticket(number=1, priority=9), now_s=0).answer is Answer.FULL


def test_a_deadline_that_has_passed_is_not_queued_and_a_later_one_expires():
    queue = AdmissionQueue(4)
    assert queue.offer(Ticket(number=1, deadline_s=5), now_s=5).answer is Answer.LATE
    queue.offer(Ticket(number=2, deadline_s=6), now_s=5)
    queue.offer(Ticket(number=3, deadline_s=9), now_s=5)
    assert [ticket.number for ticket in queue.expire(now_s=6)] == [2]
    assert drained(queue) == [3]


def test_withdrawing_twice_says_so():
    queue = AdmissionQueue(4)
    queue.offer(Ticket(number=1), now_s=0)
    assert queue.withdraw(1)
    assert not queue.withdraw(1)
    assert queue.head() is None


def test_the_memory_of_withdrawn_tickets_is_bounded():
    queue = AdmissionQueue(4)
    for number in range(10_000):
        queue.offer(Ticket(number=number), now_s=0)
        queue.withdraw(number)
    assert len(queue._heap) <= 32


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60), st.integers(0, 6))
def test_it_is_never_longer_than_its_bound_and_loses_nobody(moves, bound):
    queue, inside = AdmissionQueue(bound), set()
    for number, (priority, leave) in enumerate(moves):
        offer = queue.offer(Ticket(number=number, priority=priority), now_s=0)
        if offer.answer is Answer.QUEUED:
            inside.add(number)
        if offer.displaced:
            inside.remove(offer.displaced.number)
        if leave and (ticket := queue.head()):
            queue.withdraw(ticket.number)
            inside.remove(ticket.number)
        assert len(queue) == len(inside) <= bound
    assert set(drained(queue)) == inside


def test_retry_after_grows_with_the_queue_and_is_bounded():
    assert retry_after_s(queued=0, slots=4, service_s=0.1) == 1
    assert retry_after_s(queued=39, slots=4, service_s=2.0) == 20
    assert retry_after_s(queued=9_999, slots=1, service_s=30) == RETRY_AFTER_S_MAX
    assert retry_after_s(queued=3, slots=1, service_s=None) == 8


def test_the_service_time_is_smoothed():
    assert smoothed_service_s(None, 4.0) == 4.0
    assert smoothed_service_s(2.0, 12.0) == 3.0
