import pytest

from skep.errors import InvalidInput
from skep.spec.ids import check_id
from skep.spec.pool import check_split


@pytest.mark.parametrize(
    ("split", "devices"), [((), 3), ((1.0,), 1), ((0.6, 0.4), 2), ((1 / 3, 1 / 3, 1 / 3), 3)]
)
def test_a_split_that_sums_to_one_is_fine(split: tuple[float, ...], devices: int) -> None:
    check_split(split, devices=devices)


@pytest.mark.parametrize(
    ("split", "devices", "says"),
    [((0.6, 0.4), 3, "one share for each"), ((0.6, 0.5), 2, "1.1"), ((0.5,), 1, "0.5")],
)
def test_a_wrong_split_is_refused_with_the_numbers(split: tuple[float, ...], devices: int, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        check_split(split, devices=devices)


def test_an_id_is_what_a_file_and_a_url_can_carry() -> None:
    assert check_id("pool-0.b_c", what="pool") == "pool-0.b_c"
    for wrong in ("", "-a", "a-", "a b", "a/b", "ä", "a\n", "x" * 65):
        with pytest.raises(InvalidInput, match="pool"):
            check_id(wrong, what="pool")
