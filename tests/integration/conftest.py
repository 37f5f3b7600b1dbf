"""What the integration tests share: the gateway's loop, queens as real processes, and a worker's stand-in."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import uvloop

CHROMIUM = Path("/usr/bin/chromium")


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name.startswith("test_gateway"):
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


class QueenProcess(NamedTuple):
    """A running `skep queen`."""

    child: subprocess.Popen
    gateway: str
    admin: str
    log: Path


@contextlib.contextmanager
def _queen(folder: Path, number: int, *more: str) -> Iterator[QueenProcess]:
    ready, tell = os.pipe()
    alive, hold = os.pipe()
    log = folder / f"queen-{number}.log"
    argv = [
        sys.executable,
        "-m",
        "skep.cli.main",
        "queen",
        "--report-fd",
        str(tell),
        "--exit-with-fd",
        str(alive),
    ]
    if "--bind" not in more:
        argv += ["--bind", "127.0.0.1:0"]
    if "--admin-bind" not in more:
        argv += ["--admin-bind", "127.0.0.1:0"]
    env = {**os.environ, "SKEP_HOME": str(folder / "home")}
    with log.open("wb") as output:
        child = subprocess.Popen(
            [*argv, *more], pass_fds=(tell, alive), stdout=output, stderr=output, env=env
        )
    os.close(tell)
    os.close(alive)
    try:
        with os.fdopen(ready, "rb") as pipe:
            line = pipe.readline()
        assert line, log.read_text()
        told = json.loads(line)
        yield QueenProcess(child, told["gateway"], told["admin"], log)
    finally:
        os.close(hold)
        try:
            child.wait(10)
        finally:
            child.kill()
            child.wait()


@pytest.fixture
def start_queen(tmp_path: Path) -> Iterator[Callable[..., QueenProcess]]:
    """Start queens on free ports with any more arguments; they end with the test, and with the test runner."""
    with contextlib.ExitStack() as stack:
        numbers = iter(range(100))
        yield lambda *more: stack.enter_context(_queen(tmp_path, next(numbers), *more))


class HiveProcess(NamedTuple):
    """A running `skep hive`."""

    child: subprocess.Popen
    url: str
    log: Path


@contextlib.contextmanager
def _hive(folder: Path, node: str, queen: str, config: str) -> Iterator[HiveProcess]:
    ready, tell = os.pipe()
    alive, hold = os.pipe()
    home = folder / f"hive-{node}"
    home.mkdir()
    (home / "skep.toml").write_text(config)
    argv = [
        sys.executable,
        "-m",
        "skep.cli.main",
        "hive",
        "--config",
        str(home / "skep.toml"),
        "--queen",
        queen,
    ]
    argv += [
        "--bind",
        "127.0.0.1:0",
        "--node-id",
        node,
        "--report-fd",
        str(tell),
        "--exit-with-fd",
        str(alive),
    ]
    env = {**os.environ, "SKEP_HOME": str(home)}
    with (home / "hive.log").open("wb") as output:
        child = subprocess.Popen(argv, pass_fds=(tell, alive), stdout=output, stderr=output, env=env)
    os.close(tell)
    os.close(alive)
    try:
        with os.fdopen(ready, "rb") as pipe:
            line = pipe.readline()
        assert line, (home / "hive.log").read_text()
        yield HiveProcess(child, json.loads(line)["url"], home / "hive.log")
    finally:
        os.close(hold)
        try:
            child.wait(20)
        finally:
            child.kill()
            child.wait()


@pytest.fixture
def start_hive(tmp_path: Path) -> Iterator[Callable[..., HiveProcess]]:
    """Start real hives: `start_hive(node_id, queen_admin_url, skep_toml)`; they end with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda node, queen, config="": stack.enter_context(_hive(tmp_path, node, queen, config))


STAND_IN = """
import asyncio, json, sys
from aiohttp import web

running, cancelled = set(), []

async def chat(request):
    asked = await request.json()
    job = object()
    running.add(job)
    try:
        if asked.get("model") == "m-fail":
            return web.json_response({"error": {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded", "param": None}}, status=400)
        text = asked["messages"][-1]["content"]
        words = ["the ", "sky ", "is ", "blue."] if text != "for ever" else ["x "] * 10_000
        if not asked.get("stream"):
            await asyncio.sleep(0 if text != "for ever" else 1000)
            return web.json_response({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "".join(words)}}], "usage": {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}})
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        async def send(delta, finish=None):
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
            await answer.write(b"data: " + json.dumps(chunk).encode() + b"\\n\\n")
        for word in words:
            await send({"content": word})
            await asyncio.sleep(0.01 if text == "for ever" else 0)
            if text == "die" and word == "sky ":
                request.transport.abort()
                return answer
        await send({}, "stop")
        await answer.write(b"data: [DONE]\\n\\n")
        return answer
    except asyncio.CancelledError:
        cancelled.append(1)
        raise
    finally:
        running.discard(job)

async def state(request):
    return web.json_response({"running": len(running), "cancelled": len(cancelled)})

app = web.Application()
app.router.add_post("/v1/chat/completions", chat)
app.router.add_get("/state", state)

async def main():
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(site._server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()

asyncio.run(main())
"""


@pytest.fixture
def start_worker() -> Iterator[Callable[[], tuple[str, subprocess.Popen]]]:
    """Start processes that speak a worker's side; each gives its URL and its child."""
    children: list[subprocess.Popen] = []

    def start() -> tuple[str, subprocess.Popen]:
        child = subprocess.Popen(
            [sys.executable, "-c", STAND_IN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        children.append(child)
        return f"http://127.0.0.1:{int(child.stdout.readline())}", child

    yield start
    for child in children:
        child.stdin.close()
        child.stdout.close()
        try:
            child.wait(10)
        finally:
            child.kill()
            child.wait()


@pytest.fixture
async def browser() -> AsyncIterator:
    if not CHROMIUM.exists():
        pytest.skip("no chromium here: apt-get install chromium")
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        await running.close()
