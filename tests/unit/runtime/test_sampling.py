"""The ranges of sampling parameters: every violation is told, field by field."""

import pytest

from skep.errors import InvalidInput
from skep.errors.runtime import InvalidSampling
from skep.runtime.open import BACKENDS, open_backend
from skep.runtime.sampling import SEED_MAX, SamplingParams, check, violations


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("temperature", [0.0, 2.0], [-0.1, 2.1, float("nan"), float("inf")]),
        ("top_k", [0, 1_000_000], [-1, 1_000_001]),
        ("top_p", [0.0, 1.0], [-0.1, 1.1]),
        ("min_p", [0.0, 1.0], [-0.1, 1.1]),
        ("repetition_penalty", [0.01, 10.0], [0.0, 10.1]),
        ("presence_penalty", [-2.0, 2.0], [-2.1, 2.1]),
        ("frequency_penalty", [-2.0, 2.0], [-2.1, 2.1]),
        ("penalty_last_tokens", [0, 65_536], [-1, 65_537]),
        ("seed", [None, 0, SEED_MAX], [-1, SEED_MAX + 1]),
        ("logit_bias", [{}, {0: 100.0, 9: -100.0}], [{10: 0.0}, {-1: 0.0}, {1: 100.1}, {1: float("nan")}]),
    ],
)
def test_each_field_has_its_range(field: str, good: list[object], bad: list[object]) -> None:
    for value in good:
        assert violations(SamplingParams(**{field: value}), vocab_size=10) == {}
    for value in bad:
        assert violations(SamplingParams(**{field: value}), vocab_size=10).keys() == {field}


def test_all_violations_are_told_at_once() -> None:
    with pytest.raises(InvalidSampling) as caught:
        check(SamplingParams(temperature=-1.0, top_p=2.0, seed=-1))
    assert caught.value.violations.keys() == {"temperature", "top_p", "seed"}


def test_parameters_in_range_come_back_unchanged() -> None:
    params = SamplingParams(temperature=0.5, seed=1)
    assert check(params) is params


def test_backends_are_opened_by_name() -> None:
    assert open_backend("fake").name == "fake"
    assert set(BACKENDS) == {"llama", "fake"}
    with pytest.raises(InvalidInput, match="there are llama, fake"):
        open_backend("onnx")
