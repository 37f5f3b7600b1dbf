"""The process: honest readiness, failed starts, draining, and every way to die."""

import asyncio
import hashlib
import http.server
import json
import os
import shutil
import signal
import sys
import threading

import aiohttp
import pytest

from skep.errors.harness import WorkerDied, WorkerHttpFailed, WorkerSpawnFailed
from skep.process.socket import bind_listener
from skep.runtime.models import BERT, TINY
from skep.testkit.harness import (
    WorkerHarness,
    assert_event_order,
    assert_successful_completion,
    collect_sse_events,
    make_request,
)
from skep.wire.events import Error

pytestmark = pytest.mark.asyncio(loop_scope="module")

SLOW = "fake:slow?token_delay_ms=30"


async def finished(*argv, env=None):
    """Run `skep worker` to its end; return (exit code, stderr lines, stdout)."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "skep.cli.main", "worker", *argv,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, **(env or {})},
    )  # fmt: skip
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    return process.returncode, err.decode().splitlines(), out.decode()


def bad_files(tmp_path):
    whole = TINY.read_bytes()
    (tmp_path / "empty.gguf").write_bytes(b"")
    (tmp_path / "magic.gguf").write_bytes(b"NOPE" + whole[4:])
    (tmp_path / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "folder.gguf").mkdir()
    return tmp_path


@pytest.mark.llama
@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("missing.gguf", {"model_not_found"}),
        ("folder.gguf", {"not_a_gguf", "model_not_found", "model_load_failed"}),
        ("empty.gguf", {"gguf_truncated", "not_a_gguf"}),
        ("magic.gguf", {"not_a_gguf"}),
        ("cut.gguf", {"gguf_truncated"}),
    ],
)
async def test_a_bad_model_is_one_json_line_and_exit_1(tmp_path, name, codes):
    path = bad_files(tmp_path) / name
    code, err, out = await finished("--model", str(path))
    assert (code, out) == (1, "")
    [line] = [json.loads(one) for one in err]
    assert line["event"] == "failed"
    assert line["code"] in codes
    assert name in line["message"]


@pytest.mark.parametrize(
    ("argv", "code_name"),
    [
        (("--model", "fake:a", "--backend", "fake", "--slots", "0"), "invalid_config"),
        (("--model", "fake:a", "--backend", "fake", "--devices", "cpu,1"), "invalid_config"),
        (("--model", "fake:a", "--backend", "fake", "--host", "0.0.0.0"), "invalid_config"),
        (("--model", "fake:a?bogus=1", "--backend", "fake"), "invalid_request"),
        (("--model", "fake:a?fail_load=insufficient_memory", "--backend", "fake"), "insufficient_memory"),
        (("--model", "fake:a", "--backend", "fake", "--listen-fd", "99"), "invalid_config"),
        (("--model", "fake:a", "--backend", "fake", "--listen-fd", "0"), "invalid_config"),
        (("--model", "fake:a", "--backend", "fake", "--report-fd", "99"), "invalid_config"),
        (("--model", "fake:a", "--backend", "fake", "--exit-with-fd", "99"), "invalid_config"),
        ((), "invalid_config"),
        (("--model", "fake:a", "--slots", "abc"), "invalid_config"),
        (("--model", "fake:a", "--split", "half"), "invalid_config"),
        (("--model", "fake:a", "--bogus"), "invalid_config"),
        (("--model", "/nowhere/x.gguf", "--backend", "fake"), "model_not_found"),
    ],
)
async def test_a_worker_that_cannot_start_names_the_cause(argv, code_name):
    code, err, out = await finished(*argv)
    assert (code, out) == (1, "")
    assert json.loads(err[-1])["code"] == code_name
    assert not [line for line in err if not line.startswith("{")]


async def test_a_port_in_use_is_one_line():
    with bind_listener("127.0.0.1") as holder:
        port = holder.getsockname()[1]
        code, err, _ = await finished("--model", "fake:a", "--backend", "fake", "--port", str(port))
    assert code == 1
    line = json.loads(err[-1])
    assert (line["code"], str(port) in line["message"]) == ("port_in_use", True)


async def test_while_loading_health_answers_and_the_rest_says_not_yet():
    starting = asyncio.create_task(WorkerHarness.start("fake:a?load_delay_ms=1500"))
    seen = await asyncio.to_thread(_port_of_child)
    base = f"http://127.0.0.1:{seen}"
    async with aiohttp.ClientSession() as client, asyncio.timeout(8):
        while True:
            try:
                async with client.get(f"{base}/health") as response:
                    status, health = response.status, await response.json()
                break
            except aiohttp.ClientError:
                await asyncio.sleep(0.01)
        assert (status, health["status"], health["resident"]) == (503, "loading", False)
        async with client.post(f"{base}/execute", json={"job_id": "a", "prompt": "b"}) as response:
            assert response.status == 503
            assert "retry-after" in response.headers
            assert (await response.json())["error"]["code"] == "model_loading"
    async with await starting as worker, worker.client.get("/health") as response:
        assert (response.status, (await response.json())["status"]) == (200, "ready")


def _port_of_child():
    """The port of the only worker that this process has started."""
    import time

    import psutil

    until = time.monotonic() + 8
    while time.monotonic() < until:
        for child in psutil.Process().children(recursive=True):
            for one in child.net_connections(kind="tcp"):
                if one.status == psutil.CONN_LISTEN:
                    return one.laddr.port
        time.sleep(0.01)
    raise TimeoutError


async def test_sigterm_lets_short_jobs_finish_and_exits_0(start_worker):
    worker = await start_worker("fake:a?token_delay_ms=10")
    stream = await worker.execute(make_request(max_tokens=40))
    worker.signal(signal.SIGTERM)
    assert_successful_completion(await collect_sse_events(stream))
    assert (await worker.wait_exit()).code == 0


async def test_sigterm_ends_long_jobs_with_a_terminal_event_within_5_s(start_worker):
    worker = await start_worker(SLOW, slots=1)
    running = await worker.execute(make_request(max_tokens=2000))
    queued = asyncio.create_task(worker.execute(make_request()))
    await worker.until_health(lambda found: found["queue_depth"] == 1)
    begun = asyncio.get_running_loop().time()
    worker.signal(signal.SIGTERM)
    events = await collect_sse_events(running)
    assert_event_order(events)
    assert isinstance(events[-1], Error)
    assert events[-1].code == "cancelled"
    with pytest.raises((WorkerHttpFailed, WorkerDied)):
        await queued
    assert (await worker.wait_exit()).code == 0
    assert asyncio.get_running_loop().time() - begun < 6


async def test_a_second_signal_does_not_wait(start_worker):
    worker = await start_worker(SLOW)
    stream = await worker.execute(make_request(max_tokens=2000))
    begun = asyncio.get_running_loop().time()
    worker.signal(signal.SIGINT)
    await worker.until_health(lambda found: found["status"] == "draining")
    worker.signal(signal.SIGINT)
    assert isinstance((await collect_sse_events(stream))[-1], Error)
    assert (await worker.wait_exit()).code == 0
    assert asyncio.get_running_loop().time() - begun < 3.5


async def test_sigkill_in_mid_stream_is_never_a_clean_end(start_worker):
    worker = await start_worker(SLOW)
    stream = await worker.execute(make_request(max_tokens=2000))
    await anext(stream)
    worker.signal(signal.SIGKILL)
    with pytest.raises(WorkerDied):
        await collect_sse_events(stream)


async def test_a_worker_ends_when_its_owner_is_gone(start_worker):
    worker = await start_worker(SLOW)
    stream = await worker.execute(make_request(max_tokens=2000))
    worker._launched.let_go()
    assert (await worker.wait_exit()).code == 0
    await stream.aclose()


async def test_drain_finishes_or_cancels_by_its_deadline_and_admits_nothing(start_worker):
    worker = await start_worker("fake:a?token_delay_ms=20")
    short, long = (
        await worker.execute(make_request(max_tokens=10)),
        await worker.execute(make_request(max_tokens=2000)),
    )
    draining = asyncio.create_task(worker.drain(deadline_ms=1500))
    await worker.until_health(lambda found: found["status"] == "draining")
    with pytest.raises(WorkerHttpFailed) as caught:
        await worker.execute(make_request())
    assert (caught.value.status, caught.value.error.code) == (503, "draining")
    outcome = await draining
    assert outcome["drained"]
    assert (outcome["jobs_finished"], outcome["jobs_cancelled"]) == (1, 1)
    assert_successful_completion(await collect_sse_events(short))
    assert isinstance((await collect_sse_events(long))[-1], Error)


async def test_an_engine_that_broke_ends_the_process_with_its_cause(start_worker):
    worker = await start_worker(
        "fake:a?fail_decode=decode_failed&fail_decode_after=12&fail_decode_times=1000"
    )

    async def ask_until_refused():
        while True:
            stream = await worker.execute(make_request(max_tokens=200))
            assert isinstance((await collect_sse_events(stream))[-1], Error)

    with pytest.raises((WorkerDied, WorkerHttpFailed)):
        await ask_until_refused()
    assert (await worker.wait_exit()).code == 1
    assert '"event":"failed"' in worker.logs


@pytest.mark.llama
async def test_a_model_file_that_is_replaced_harms_nobody_and_one_rewritten_in_place_ends_the_process(
    start_worker, tmp_path
):
    model = tmp_path / "model.gguf"
    shutil.copy(TINY, model)
    worker = await start_worker(str(model), extra=("--threads", "1"))
    (tmp_path / "new.gguf").write_bytes(b"another model")
    (tmp_path / "new.gguf").replace(model)
    stream = await worker.execute(make_request("Once", max_tokens=200))
    assert_successful_completion(await collect_sse_events(stream))
    shutil.copy(TINY, tmp_path / "other.gguf")
    worker = await start_worker(str(tmp_path / "other.gguf"), extra=("--threads", "1"))
    with (tmp_path / "other.gguf").open("r+b") as file:
        file.write(BERT.read_bytes())
    assert (await worker.wait_exit()).code == 1
    assert '"code":"model_file_changed"' in worker.logs


@pytest.mark.llama
async def test_many_starts_give_everything_back():
    for _ in range(3):
        async with await WorkerHarness.start(TINY) as worker:
            assert (await worker.health())["resident"]


@pytest.fixture
def file_server(tmp_path):
    """An HTTP server over a folder; gives the folder and its address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


async def test_a_model_that_is_elsewhere_is_brought_here_first(start_worker, file_server, tmp_path):
    folder, address = file_server
    (folder / "far.gguf").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    home = {"SKEP_HOME": str(tmp_path / "home")}
    worker = await start_worker(f"{address}/far.gguf#sha256={digest}", backend="fake", env=home)
    assert (await worker.health())["model"] == "far"
    with pytest.raises(WorkerSpawnFailed) as caught:
        await WorkerHarness.start(
            f"{address}/far.gguf#sha256={'0' * 64}", backend="fake", env=home, ready_s=60
        )
    assert caught.value.cause == "checksum_mismatch"


async def test_a_missing_model_is_a_failed_spawn_in_the_harness():
    with pytest.raises(WorkerSpawnFailed) as caught:
        await WorkerHarness.start("/nowhere/x.gguf", backend="fake")
    assert caught.value.cause == "model_not_found"
