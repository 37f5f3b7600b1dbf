"""llama.cpp's own server as an engine: built by us from its repository, then preloaded, asked, drained, reloaded, stopped.

The program is `SKEP_LLAMA_SERVER=path`; `SKEP_LLAMA_CPP_REPO=path-or-url` (and `SKEP_LLAMA_CPP_REF`) builds it first.
"""

import json
import os
import shutil
import urllib.request
from pathlib import Path

import pytest

from skep.provision.ensure import ensure, list_engines
from skep.provision.progress import Progress
from skep.runtime.models import TINY, TINY_Q8
from skep.spec.engine import EngineKind, EngineSpec, EngineWay
from skep.wire.sse import parse_all

PROGRAM = os.environ.get("SKEP_LLAMA_SERVER", "")
REPO, REF = os.environ.get("SKEP_LLAMA_CPP_REPO", ""), os.environ.get("SKEP_LLAMA_CPP_REF", "master")
FLAGS = (
    "LLAMA_OPENSSL=OFF",
    "LLAMA_BUILD_TESTS=OFF",
    "LLAMA_BUILD_EXAMPLES=OFF",
    "LLAMA_USE_PREBUILT_UI=OFF",
)
BUILD_S_MAX = 7200

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
needs_program = pytest.mark.skipif(
    not PROGRAM, reason="SKEP_LLAMA_SERVER does not name a llama-server to run"
)


def engine(*more: str) -> str:
    return (
        f'[[engine]]\nid = "llama"\nkind = "llama-server"\nargv = {json.dumps(["--threads", "1", *more])}\n'
        f'[[model]]\nname = "tiny"\nref = {json.dumps(str(TINY))}\n'
        f'[[model]]\nname = "tiny-q8"\nref = {json.dumps(str(TINY_Q8))}\n'
    )


@pytest.fixture
def on_path(tmp_path: Path) -> str:
    """A PATH on which llama-server is found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "llama-server").symlink_to(Path(PROGRAM).resolve())
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def request(url: str, model: str = "tiny", **fields) -> urllib.request.Request:
    messages = [{"role": "user", "content": "what color is the sky?"}]
    body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 16, **fields}
    return urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )


def chat(url: str, model: str = "tiny") -> dict:
    with urllib.request.urlopen(request(url, model), timeout=60) as reply:
        return json.loads(reply.read())


def said(answer: dict) -> str:
    return answer["choices"][0]["message"]["content"]


@pytest.mark.skipif(not REPO, reason="SKEP_LLAMA_CPP_REPO does not name a repository to build")
@pytest.mark.timeout(BUILD_S_MAX)
async def test_llama_server_is_built_from_its_repository(tmp_path: Path) -> None:
    spec = EngineSpec(
        id="llama", kind=EngineKind.LLAMA_SERVER, way=EngineWay.SOURCE, repo=REPO, ref=REF, flags=FLAGS
    )
    told: list[Progress] = []
    built = await ensure(spec, root=tmp_path, on_progress=told.append)
    assert "version" in built.version
    assert Path(built.program).is_file()
    assert list_engines(tmp_path) == [built]
    assert await ensure(spec, root=tmp_path) == built, "the second time there is nothing to do"
    shutil.rmtree(tmp_path)


@needs_program
def test_it_is_preloaded_asked_drained_and_preloaded_again(place, pool_toml, on_path: str) -> None:
    pool = pool_toml(model="tiny", engine="llama", backend="llama", slots=2, context=256)
    place.configure(engine() + pool, inference_probe=True)
    hive = place.start(PATH=on_path)
    ready = hive.until_ready()
    assert ready["engine_version"]
    replica = ready["replicas"][0]
    assert (replica["slots_total"], replica["slots_free"]) == (2, 2)
    assert said(chat(replica["url"])) == "the sky is blue."
    hive.ask("/v2/pools/pool-0/drain", {"deadline_ms": 5000})
    drained = hive.until_state("offline")
    assert drained["last_drain"]["force_stopped"] is False
    assert place.workers() == []
    hive.ask("/v2/pools/pool-0/preload", {})
    assert said(chat(hive.until_ready()["replicas"][0]["url"])) == "the sky is blue."
    assert hive.stop() == 0
    assert place.workers() == []


@needs_program
def test_it_is_asked_through_a_queen_whole_and_in_a_stream(
    place, pool_toml, on_path: str, start_queen
) -> None:
    queen = start_queen()
    pool = pool_toml(model="tiny", engine="llama", backend="llama", slots=2, context=256)
    place.configure(engine() + pool, queen=queen.admin)
    place.start(PATH=on_path).until_ready()

    def listed() -> bool:
        with urllib.request.urlopen(f"{queen.gateway}/v1/models", timeout=10) as reply:
            return [one["id"] for one in json.load(reply)["data"]] == ["tiny"]

    place.until(listed, within_s=30)
    assert said(chat(queen.gateway)) == "the sky is blue."
    with urllib.request.urlopen(request(queen.gateway, stream=True), timeout=60) as reply:
        events = parse_all([reply.read()], strict=True)
    assert events[-1].data == "[DONE]"
    deltas = [json.loads(one.data)["choices"][0]["delta"].get("content") or "" for one in events[:-1]]
    assert "".join(deltas) == "the sky is blue."


@needs_program
def test_a_running_job_is_waited_for_by_a_drain_and_cut_at_its_deadline(
    place, pool_toml, on_path: str
) -> None:
    place.configure(engine() + pool_toml(model="tiny", engine="llama", backend="llama", slots=1, context=512))
    hive = place.start(PATH=on_path)
    url = hive.until_ready()["replicas"][0]["url"]
    long = request(url, max_tokens=100_000, ignore_eos=True, stream=True)
    with urllib.request.urlopen(long, timeout=60) as reply:
        reply.readline()
        hive.ask("/v2/pools/pool-0/drain", {"deadline_ms": 300})
        drained = hive.until_state("offline")
    assert drained["last_drain"]["duration_ms"] >= 0
    assert place.workers() == []


@needs_program
def test_it_is_reloaded_with_another_model(place, pool_toml, on_path: str) -> None:
    place.configure(
        engine() + pool_toml(model="tiny", engine="llama", backend="llama", context=256),
    )
    hive = place.start(PATH=on_path)
    before = hive.until_ready()["replicas"][0]
    status, found = hive.ask("/v2/pools/pool-0/reload", {"model": "tiny-q8"})
    assert status == 202, found
    after = hive.until(
        lambda pool: (
            pool["replicas"]
            and pool["state"] == "ready"
            and pool["replicas"][0]["pid"] != before["pid"]
            and pool["replicas"][0]
        )
    )
    assert "sky" in said(chat(after["url"], model="tiny-q8"))
    assert place.workers() == [after["pid"]]


@needs_program
def test_it_is_adopted_by_the_next_hive(place, pool_toml, on_path: str) -> None:
    place.configure(engine() + pool_toml(model="tiny", engine="llama", backend="llama", context=256))
    hive = place.start(PATH=on_path)
    before = hive.until_ready()["replicas"][0]
    hive.kill()
    assert place.start(PATH=on_path).until_ready()["replicas"][0]["pid"] == before["pid"]


@needs_program
def test_a_build_without_cuda_never_serves_a_gpu_pool_from_the_cpu(place, pool_toml, on_path: str) -> None:
    device = '[[fake_device]]\nindex = 0\nid = "GPU-0000"\nmemory_total_bytes = 8000000000\n'
    place.configure(engine() + device + pool_toml(model="tiny", engine="llama", backend="llama", devices="0"))
    pool = place.start(PATH=on_path).until_state("unready")
    assert "CUDA0" in pool["last_error"]["log_tail"]
