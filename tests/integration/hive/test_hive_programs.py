"""Engines by their own kinds: `llama-server` and `vllm`, as stand-ins that take only the real programs' flags."""

import os
from pathlib import Path

import pytest

from skep.runtime.models import TINY

STAND_INS = Path(__file__).parents[2] / "engines" / "stand-ins"
PATH = f"{STAND_INS}{os.pathsep}{os.environ['PATH']}"


def engine(kind: str) -> str:
    return f'[[engine]]\nid = "theirs"\nkind = "{kind}"\n'


@pytest.mark.parametrize("kind", ["llama-server", "vllm"])
def test_a_program_on_path_is_served_drained_and_preloaded_again(place, pool_toml, kind: str) -> None:
    pool = pool_toml(model=str(TINY), engine="theirs", backend="llama", slots=2, context=128)
    place.configure(engine(kind) + pool)
    hive = place.start(PATH=PATH)
    first = hive.until_ready()
    assert first["engine_version"]
    replica = first["replicas"][0]
    assert (replica["slots_total"], replica["slots_free"]) == (2, 2), "by its own gauges"
    hive.ask("/v2/pools/pool-0/drain", {"deadline_ms": 5000})
    drained = hive.until_state("offline")
    assert drained["last_drain"]["force_stopped"] is False, "its gauges said that it was idle"
    assert place.workers() == []
    hive.ask("/v2/pools/pool-0/preload", {})
    assert hive.until_ready()["replicas"][0]["pid"] != replica["pid"]


def test_a_build_without_cuda_never_serves_a_gpu_pool_from_the_cpu(place, pool_toml) -> None:
    device = '[[fake_device]]\nindex = 0\nid = "GPU-0000"\nmemory_total_bytes = 8000000000\n'
    place.configure(
        engine("llama-server")
        + device
        + pool_toml(model=str(TINY), engine="theirs", backend="llama", devices="0")
    )
    hive = place.start(PATH=PATH)
    pool = hive.until_state("unready")
    assert "invalid device: CUDA0" in pool["last_error"]["log_tail"]


def test_a_program_that_is_not_here_is_told_with_what_to_do(place, pool_toml) -> None:
    place.configure(engine("vllm") + pool_toml(model=str(TINY), engine="theirs", backend="llama"))
    pool = place.start(PATH="/usr/bin:/bin").until_state("unready")
    assert pool["last_error"]["code"] == "engine_not_found"
    assert "declare another way" in pool["last_error"]["message"]
    assert place.workers() == []
