import pytest

from skep.policy.starting import deadline_s, limit_s

GIB = 1024**3


@pytest.mark.parametrize(("gib", "limit"), [(0, 30), (1, 50), (7, 170), (40, 830)])
def test_the_limit_grows_with_the_model(gib: int, limit: float) -> None:
    assert limit_s(gib * GIB) == limit


def test_progress_extends_a_start_and_standing_still_does_not() -> None:
    assert deadline_s(started_s=100, progressed_s=None, model_bytes=0) == 130
    assert deadline_s(started_s=100, progressed_s=101, model_bytes=0) == 131
    assert deadline_s(started_s=100, progressed_s=128, model_bytes=0) == 158


def test_even_endless_progress_has_an_end() -> None:
    assert deadline_s(started_s=0, progressed_s=10_000, model_bytes=0) == 300
