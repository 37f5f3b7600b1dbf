import pytest

from skep.runtime.backend import Row
from skep.runtime.llama.batch import RowBuffer

LIMITS = {"vocab_size": 100, "positions_max": 50, "sequences": 4}


def test_rows_reach_the_c_arrays() -> None:
    buffer = RowBuffer(8)
    rows = [Row(5, 7, 1, wants_logits=False), Row(6, 8, 3, wants_logits=True)]
    assert buffer.fill(rows, **LIMITS) == ""
    batch = buffer.batch
    assert batch.n_tokens == 2
    assert [batch.token[i] for i in range(2)] == [5, 6]
    assert [batch.pos[i] for i in range(2)] == [7, 8]
    assert [batch.n_seq_id[i] for i in range(2)] == [1, 1]
    assert [batch.seq_id[i][0] for i in range(2)] == [1, 3]
    assert [batch.logits[i] for i in range(2)] == [0, 1]
    assert buffer.wants == (False, True)


def test_a_shorter_fill_replaces_a_longer_one() -> None:
    buffer = RowBuffer(4)
    buffer.fill([Row(1, i, 0, wants_logits=True) for i in range(4)], **LIMITS)
    buffer.fill([Row(9, 4, 0, wants_logits=True)], **LIMITS)
    assert (buffer.batch.n_tokens, buffer.batch.token[0], buffer.wants) == (1, 9, (True,))


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [Row(1, i, 0, wants_logits=False) for i in range(9)],
        [Row(-1, 0, 0, wants_logits=True)],
        [Row(100, 0, 0, wants_logits=True)],
        [Row(2**40, 0, 0, wants_logits=True)],
        [Row(1, -1, 0, wants_logits=True)],
        [Row(1, 50, 0, wants_logits=True)],
        [Row(1, 0, -1, wants_logits=True)],
        [Row(1, 0, 4, wants_logits=True)],
        [Row(1, 0, 0, wants_logits=True), Row(2, 0, 0, wants_logits=True)],
        [Row(1.5, 0, 0, wants_logits=True)],
        [Row("1", 0, 0, wants_logits=True)],
        [Row(None, 0, 0, wants_logits=True)],
        [(1, 2)],
        [7],
    ],
)
def test_rows_that_would_harm_the_library_are_named_and_not_passed_on(rows: list) -> None:
    buffer = RowBuffer(8)
    assert buffer.fill(rows, **LIMITS)
    assert buffer.wants == ()


def test_pooling_wants_every_row() -> None:
    buffer = RowBuffer(4, wants_all=True)
    buffer.fill([Row(1, i, 0, wants_logits=False) for i in range(3)], **LIMITS)
    assert buffer.wants == (True, True, True)
    assert [buffer.batch.logits[i] for i in range(3)] == [1, 1, 1]
