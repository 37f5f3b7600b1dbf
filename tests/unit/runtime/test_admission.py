"""Waiting jobs: in turn over clients, in order within one."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from skep.runtime.admission import AdmissionQueue


def job(client: str, number: int) -> SimpleNamespace:
    return SimpleNamespace(request=SimpleNamespace(client=client), number=number)


def drain(queue: AdmissionQueue) -> list[tuple[str, int]]:
    out = []
    while queue:
        found = queue.pop()
        out.append((found.request.client, found.number))
    return out


def test_a_client_s_turn_comes_again_after_the_others() -> None:
    queue = AdmissionQueue()
    for client, number in [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("c", 1), ("c", 2)]:
        queue.push(job(client, number))
    assert drain(queue) == [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("c", 2), ("a", 3)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40))
def test_nobody_is_lost_and_order_holds_within_a_client(moves: list[tuple[str, bool]]) -> None:
    queue, waiting = AdmissionQueue(), []
    for number, (client, removes) in enumerate(moves):
        if removes and waiting:
            queue.remove(waiting.pop(len(waiting) // 2))
        else:
            waiting.append(job(client, number))
            queue.push(waiting[-1])
        assert len(queue) == len(waiting)
        assert {id(one) for one in queue} == {id(one) for one in waiting}
    out = drain(queue)
    for client in "abc":
        assert [n for c, n in out if c == client] == [
            one.number for one in waiting if one.request.client == client
        ]
