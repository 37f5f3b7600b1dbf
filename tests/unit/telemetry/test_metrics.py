"""Registries are separate and render in Prometheus' format."""

from prometheus_client import Counter
from prometheus_client.parser import text_string_to_metric_families

from skep.telemetry.metrics import DURATION_S_BUCKETS, new_registry, render


def test_registries_do_not_share_series():
    one, other = new_registry(), new_registry()
    Counter("vllm:prompt_tokens", "x", registry=one).inc(3)
    Counter("vllm:prompt_tokens", "x", registry=other).inc(4)
    [family] = text_string_to_metric_families(render(one).decode())
    assert [(sample.name, sample.value) for sample in family.samples] == [("vllm:prompt_tokens_total", 3.0)]


def test_duration_buckets_double_to_the_convention_s_last():
    assert DURATION_S_BUCKETS[0] == 0.01
    assert DURATION_S_BUCKETS[-1] == 81.92
