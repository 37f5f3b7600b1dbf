"""`skep model info` and `fit`: what a file says, and whether it fits."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from skep.cli.model_facts import model
from skep.errors import SkepError
from skep.runtime.models import TINY

DEVICES = """
[[fake_device]]
index = 0
memory_total_bytes = 1000000000
[[fake_device]]
index = 1
memory_total_bytes = 500000000
"""


@pytest.fixture
def skep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return what runs a `skep model` command here; its output and its error together, and whether it succeeded."""
    (tmp_path / "skep.toml").write_text(DEVICES)
    monkeypatch.chdir(tmp_path)

    def run(*argv: str) -> tuple[str, bool]:
        result = CliRunner().invoke(model, argv)
        assert result.exception is None or isinstance(result.exception, (SkepError, SystemExit))
        return f"{result.output}{result.exception or ''}", result.exception is None

    return run


def test_info_tells_what_the_header_says(skep) -> None:
    facts = json.loads(skep("info", str(TINY), "--json", "--quiet")[0])
    assert facts["architecture"] == "llama"
    assert facts["weights_bytes"] < TINY.stat().st_size
    values = 2 * facts["layers"] * facts["kv_heads"] * facts["head_size"]
    assert facts["kv_cache_bytes_for_1000_tokens"] == values * 2 * 1000


def test_a_broken_file_is_named_by_what_is_wrong_with_it(skep, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(TINY.read_bytes()[:20_000])
    told, is_done = skep("info", str(broken), "--quiet")
    assert not is_done
    assert "truncated" in told or "ends" in told


@pytest.mark.parametrize(
    ("argv", "is_done", "says"),
    [
        (["--devices", "0"], True, "compute buffers"),
        (["--devices", "0", "--context", "10000000"], False, "KV cache"),
        (["--devices", "0,1"], False, "for example split = [0.67, 0.33]"),
        (["--devices", "0,1", "--split", "0.67,0.33"], True, "67%"),
        (["--devices", "7"], False, "this machine has accelerators 0 (FAKE-0), 1 (FAKE-1) and cpu"),
        (["--devices", "0,0"], False, "names FAKE-0 twice"),
        (["--devices", ""], False, "is empty"),
        (["--devices", "0", "--split", "half"], False, "list of shares"),
        (["--devices", "0", "--cache-type", "f64"], False, "none of f32"),
    ],
)
def test_fit_names_each_term_and_what_is_missing(skep, argv: list[str], is_done: bool, says: str) -> None:
    told, was_done = skep("fit", str(TINY), "--quiet", *argv)
    assert says in told
    assert was_done is is_done
