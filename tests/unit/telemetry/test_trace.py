"""traceparent, by the W3C's own examples and refusals."""

import pytest

from skep.telemetry.trace import new_trace, parse

GOOD = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_header_is_read_and_written_back():
    context = parse(GOOD.encode())
    assert context is not None
    assert context.header() == GOOD
    assert context.child().trace_id == context.trace_id
    assert context.child().span_id != context.span_id
    assert parse(new_trace().header()) is not None


@pytest.mark.parametrize(
    "bad",
    [None, "", "x", GOOD.upper(), GOOD + "-extra", "ff" + GOOD[2:], GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
     GOOD.replace("00f067aa0ba902b7", "0" * 16), GOOD[:-1]],
)  # fmt: skip
def test_what_breaks_the_rules_is_no_context(bad):
    assert parse(bad) is None


def test_a_later_version_may_carry_more():
    assert parse("01" + GOOD[2:] + "-more").sampled
    assert not parse(GOOD[:-2] + "00").sampled
