import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.arena import quantity
from skep.errors.arena import InvalidQuantity


@pytest.mark.parametrize(
    ("text", "milli", "whole"),
    [
        ("0", 0, 0),
        ("1", 1000, 1),
        ("500m", 500, 1),
        ("1.5", 1500, 2),
        (".5", 500, 1),
        ("5.", 5000, 5),
        ("+2", 2000, 2),
        ("100n", 1, 1),
        ("250u", 1, 1),
        ("2k", 2_000_000, 2000),
        ("3M", 3 * 10**9, 3 * 10**6),
        ("4G", 4 * 10**12, 4 * 10**9),
        ("5T", 5 * 10**15, 5 * 10**12),
        ("6P", 6 * 10**18, 6 * 10**15),
        ("7E", 7 * 10**21, 7 * 10**18),
        ("1Ki", 1_024_000, 1024),
        ("2Mi", 2 * 1024**2 * 1000, 2 * 1024**2),
        ("1.5Gi", 1024**3 * 1500, 1024**3 * 3 // 2),
        ("1Ti", 1024**4 * 1000, 1024**4),
        ("1Pi", 1024**5 * 1000, 1024**5),
        ("1Ei", 1024**6 * 1000, 1024**6),
        ("2e3", 2_000_000, 2000),
        ("2E3", 2_000_000, 2000),
        ("15e-1", 1500, 2),
        (3, 3000, 3),
        (0.25, 250, 1),
    ],
)
def test_every_suffix_is_read_exactly_and_rounded_up(text, milli, whole):
    assert quantity.milli(text) == milli
    assert quantity.whole(text) == whole


@pytest.mark.parametrize(
    "text",
    ["", "-1", "1ki", "1 Gi", "Gi", "1GiB", "0x10", "1e", "10Ei", "1e400", "nan", "inf", "1,5", "9" * 70, None, True, [], "１"],
)  # fmt: skip
def test_what_is_no_sane_quantity_is_refused(text):
    with pytest.raises(InvalidQuantity):
        quantity.parse(text)


@given(st.integers(0, 2**62))
def test_formatted_bytes_read_back_as_themselves(value):
    assert quantity.whole(quantity.format_bytes(value)) == value


@given(st.integers(0, 2**40))
def test_formatted_millicores_read_back_as_themselves(value):
    assert quantity.milli(quantity.format_milli(value)) == value
