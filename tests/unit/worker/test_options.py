"""Options are checked together, and the model's name comes from what was given."""

import pytest

from skep.errors import InvalidConfig
from skep.worker.options import WorkerOptions, check
from skep.worker.start import served_name


def options(**fields):
    return WorkerOptions(**{"worker_id": "w", "model": "fake:a", **fields})


def test_everything_that_is_wrong_is_told_at_once():
    with pytest.raises(InvalidConfig) as caught:
        check(options(slots=0, context=1, backend="x", split=(0.5, 0.6), port=1, listen_fd=3))
    for word in ("--slots", "--context", "--backend", "--split", "--listen-fd"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [{"worker_id": ""}, {"prefill_share": 2}, {"max_tokens_out": 4096}, {"timeout_s": 0}, {"queue_max": -1},
     {"port": 70000}, {"cache_type": "q2"}, {"flash_attention": "maybe"}, {"model": ""}],
)  # fmt: skip
def test_values_out_of_range_are_refused(fields):
    with pytest.raises(InvalidConfig):
        check(options(**fields))


@pytest.mark.parametrize(
    ("model", "given", "name"),
    [
        ("/models/llama-3.gguf", "", "llama-3"),
        ("fake:demo?x=1", "", "demo"),
        ("fake:", "", "fake"),
        ("a.gguf", "bee", "bee"),
        ("hf:o/r/sub/file-q4.gguf@main", "", "file-q4"),
        ("https://x.test/m/big.gguf#sha256=" + "0" * 64, "", "big"),
    ],
)
def test_names(model, given, name):
    assert served_name(options(model=model, served_name=given)) == name
