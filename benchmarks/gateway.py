"""The gateway beside nginx: one upstream behind both, asked in turn.

    .venv/bin/python benchmarks/gateway.py [--rounds N] [--streams N] [--events N] [--requests N]

CPU is user plus system time of the proxy's processes alone. Rounds are interleaved (gateway, nginx, nginx, gateway, …),
and ratios are those of neighbouring rounds: medians, with the range. Added time to first token is against asking the
upstream directly, one request at a time. Prints Markdown, for docs/performance.md. Without nginx its columns are left
out, and it says so.
"""

import argparse
import asyncio
import http.client
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

TICKS = os.sysconf("SC_CLK_TCK")
BODY_STREAM = (
    b'{"model":"bench","stream":true,"messages":[{"role":"user","content":"what color is the sky?"}]}'
)
BODY_PLAIN = b'{"model":"bench","messages":[{"role":"user","content":"what color is the sky?"}]}'

UPSTREAM = r"""
import asyncio, sys, uvloop

GAP_S, EVENTS = float(sys.argv[1]), int(sys.argv[2])
CHUNK = b'{"id":"chatcmpl-0be2ac92ee084091992e93eddae05723","object":"chat.completion.chunk","created":1795213043,"model":"bench","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]}'
EVENT = b"data: " + CHUNK + b"\n\n"
FRAMED = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PLAIN = b'{"id":"x","object":"chat.completion","created":1,"model":"bench","choices":[{"index":0,"message":{"role":"assistant","content":"the sky is blue."},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":4,"total_tokens":9}}'
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(PLAIN), PLAIN)

class Worker(asyncio.Protocol):
    def connection_made(self, transport): self.transport, self.buffer, self.gone = transport, b"", False
    def connection_lost(self, exc): self.gone = True
    def data_received(self, data):
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        if not end: return
        length = next(int(l.split(b":")[1]) for l in head.split(b"\r\n") if l.lower().startswith(b"content-length"))
        if len(body) < length: return
        self.buffer = body[length:]
        if b'"stream":true' not in body: self.transport.write(WHOLE)
        else:
            self.transport.write(HEAD + FRAMED)
            self.left = EVENTS - 1
            asyncio.get_running_loop().call_later(GAP_S, self.step)
    def step(self):
        if self.gone: return
        if self.left == 0: self.transport.write(DONE); return
        self.left -= 1
        self.transport.write(FRAMED)
        asyncio.get_running_loop().call_later(GAP_S, self.step)

async def main():
    server = await asyncio.get_running_loop().create_server(Worker, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.sleep(100_000)

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner: runner.run(main())
"""

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log; {user}
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream worker {{ server 127.0.0.1:{upstream}; keepalive 256; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096; keepalive_requests 1000000;
    location / {{ proxy_pass http://worker; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}
}}
"""


@dataclass
class Proxy:
    """Something to ask, and the processes whose CPU time counts."""

    name: str
    port: int
    pids: list[int]

    def cpu_s(self) -> float:
        """User and system time so far (proc_pid_stat(5), fields 14 and 15)."""
        total = 0
        for pid in self.pids:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS


@contextmanager
def child(argv: list[str], log: Path, **more: object) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a running child; stop it afterwards."""
    with log.open("wb") as errors:
        process = subprocess.Popen(argv, stderr=errors, **more)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        finally:
            process.kill()
            process.wait()


def post(address: str, path: str, body: object) -> None:
    """Send JSON to the queen's admin API."""
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request("POST", path, json.dumps(body))
    status = connection.getresponse().status
    connection.close()
    if status != 200:
        raise RuntimeError(f"{path} answers {status}")


@contextmanager
def gateway(folder: Path, upstream: int, slots: int) -> Iterator[Proxy]:
    """Yield a queen with one replica."""
    read, write = os.pipe()
    argv = [
        sys.executable,
        "-m",
        "skep.cli.main",
        "queen",
        "--bind",
        "127.0.0.1:0",
        "--admin-bind",
        "127.0.0.1:0",
    ]
    argv += ["--store", f"sqlite:{folder}/queen.db", "--report-fd", str(write)]
    with child(argv, folder / "queen.log", pass_fds=(write,)) as process:
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            told = json.loads(pipe.readline())
        replica = {
            "replica_id": "r",
            "url": f"http://127.0.0.1:{upstream}",
            "instance": "i",
            "state": "ready",
        }
        replica |= {"slots_total": slots, "slots_free": slots}
        pool = {"pool_id": "p", "model": "bench", "state": "ready", "replicas": [replica]}
        node = {"node_id": "n", "address": "http://127.0.0.1:9", "version": "0", "pools": [pool]}
        admin = told["admin"].removeprefix("http://")
        post(admin, "/v2/nodes/register", node)

        def beat() -> None:
            post(admin, "/v2/nodes/n/heartbeat", {"pools": [pool], "sequence": int(time.time() * 1000)})

        proxy = Proxy("skep gateway", int(told["gateway"].rpartition(":")[2]), [process.pid])
        proxy.beat = beat  # type: ignore[attr-defined]
        proxy.admin = told["admin"]  # type: ignore[attr-defined]
        yield proxy


@contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[Proxy]:
    """Yield an nginx with one worker process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    user = "user root;" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, upstream=upstream, port=port, user=user))
    with child(["nginx", "-p", str(folder), "-c", str(config)], folder / "nginx.log") as process:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            with socket.socket() as probe:
                if workers and probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield Proxy("nginx", port, [process.pid, *map(int, workers)])


@contextmanager
def litellm(program: str, folder: Path, upstream: int) -> Iterator[Proxy]:
    """Yield LiteLLM's proxy with one worker process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "litellm.json"
    params = {"model": "openai/bench", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "none"}
    config.write_text(json.dumps({"model_list": [{"model_name": "bench", "litellm_params": params}]}))
    argv = [
        program,
        "--config",
        str(config),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--num_workers",
        "1",
    ]
    env = {
        **os.environ,
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "LITELLM_LOG": "ERROR",
    }
    with child(argv, folder / "litellm.log", stdout=subprocess.DEVNULL, env=env) as process:
        until = time.monotonic() + 120
        while time.monotonic() < until and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        if process.poll() is not None:
            raise RuntimeError((folder / "litellm.log").read_text()[-500:])
        found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield Proxy("LiteLLM", port, [process.pid, *map(int, found)])


async def per_cpu_second(proxies: list[Proxy], options: argparse.Namespace) -> None:
    """Print plain requests per CPU-second of each proxy, interleaved."""
    found: dict[str, list[float]] = {proxy.name: [] for proxy in proxies}
    for number in range(options.rounds):
        for proxy in proxies if number % 2 == 0 else proxies[::-1]:
            count = options.requests if proxy.name != "LiteLLM" else max(options.requests // 20, 80)
            await requests(proxy.port, 8)
            before = proxy.cpu_s()
            await asyncio.gather(*(requests(proxy.port, count // 8) for _ in range(8)))
            found[proxy.name].append((count // 8 * 8) / (proxy.cpu_s() - before))
    for name, values in found.items():
        print(f"{name}: {spread(values, 0)} plain requests per CPU-second")


def head(body: bytes) -> bytes:
    """Return a request."""
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(body), body)
    )


async def stream(port: int) -> int:
    """Read one stream; return its events."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head(BODY_STREAM))
    events, tail = 0, b""
    while not tail.endswith(b"\r\n0\r\n\r\n"):
        data = await reader.read(65536)
        if not data:
            raise ConnectionError("the stream broke")
        events += data.count(b"data: {")
        tail = (tail + data)[-16:]
    writer.close()
    return events


async def requests(port: int, count: int) -> None:
    """Ask one after the other on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    asked = head(BODY_PLAIN)
    for _ in range(count):
        writer.write(asked)
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(answer.decode("latin-1")[:300])
        length = next(
            int(x.split(b":")[1]) for x in answer.split(b"\r\n") if x.lower().startswith(b"content-length")
        )
        await reader.readexactly(length)
    writer.close()


async def first_event_ms(port: int, count: int) -> list[float]:
    """Return the times to the first event of streams that are asked one at a time and left after it."""
    found = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        start = time.perf_counter()
        writer.write(head(BODY_STREAM))
        await reader.readuntil(b"data: {")
        found.append((time.perf_counter() - start) * 1000)
        writer.close()
    return found


async def measure(
    proxies: list[Proxy], options: argparse.Namespace, upstream: int
) -> dict[str, dict[str, list[float]]]:
    """Run all rounds."""
    found: dict[str, dict[str, list[float]]] = {
        proxy.name: {"event": [], "request": [], "first": []} for proxy in proxies
    }
    for number in range(options.rounds):
        for proxy in proxies if number % 2 == 0 else proxies[::-1]:
            if beat := getattr(proxy, "beat", None):
                beat()
            before = proxy.cpu_s()
            events = sum(await asyncio.gather(*(stream(proxy.port) for _ in range(options.streams))))
            expected = options.streams * options.events
            if events != expected:
                raise RuntimeError(f"{proxy.name} lost {expected - events} of {expected} events")
            found[proxy.name]["event"].append((proxy.cpu_s() - before) / events * 1e6)
            before = proxy.cpu_s()
            await asyncio.gather(*(requests(proxy.port, options.requests // 8) for _ in range(8)))
            found[proxy.name]["request"].append((proxy.cpu_s() - before) / (options.requests // 8 * 8) * 1e6)
            direct = await first_event_ms(upstream, 100)
            through = await first_event_ms(proxy.port, 100)
            found[proxy.name]["first"].append(statistics.median(through) - statistics.median(direct))
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    return found


def spread(values: list[float], digits: int) -> str:
    """Return the median and the range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


async def beat_as_hives(admin: str, pid: int, count: int, seconds: float) -> str:
    """Register so many hives, let them beat as the queen asks, and return what that costs it."""
    import aiohttp

    queen = Proxy("queen", 0, [pid])

    def pools(number: int, sequence: int) -> bytes:
        replica = {
            "replica_id": "r0",
            "url": f"http://10.0.0.1:{10_000 + number}",
            "instance": "i",
            "state": "ready",
        }
        replica |= {"slots_total": 4, "slots_free": sequence % 5, "token": "t" * 32}
        device = {"id": f"GPU-{number}", "kind": "cuda", "index": 0, "name": "Accelerator"}
        device |= {"memory_total_bytes": 80 << 30, "memory_free_bytes": sequence << 20}
        pool = {"pool_id": "p", "model": f"model-{number % 20}", "state": "ready", "replicas": [replica]}
        return json.dumps(
            {"instance": "h", "sequence": sequence, "pools": [pool], "devices": [device]}
        ).encode()

    async with aiohttp.ClientSession(admin, connector=aiohttp.TCPConnector(limit=50)) as session:
        for number in range(count):
            node = {"node_id": f"n{number}", "address": "http://10.0.0.1:1", "version": "0", "instance": "h"}
            async with session.post("/v2/nodes/register", json=node) as answer:
                answer.raise_for_status()

        beats = 0

        async def hive(number: int) -> None:
            nonlocal beats
            pause_s = 10 * number / count
            for sequence in range(1, 1000):
                await asyncio.sleep(pause_s)
                async with session.post(
                    f"/v2/nodes/n{number}/heartbeat", data=pools(number, sequence)
                ) as answer:
                    answer.raise_for_status()
                    pause_s = (await answer.json())["next_heartbeat_ms"] / 1000
                beats += 1

        running = [asyncio.create_task(hive(number)) for number in range(count)]
        await asyncio.sleep(12)
        before_cpu, before_beats, before = queen.cpu_s(), beats, time.monotonic()
        await asyncio.sleep(seconds)
        used, beaten, passed = queen.cpu_s() - before_cpu, beats - before_beats, time.monotonic() - before
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    share = 100 * used / passed
    return f"{count} hives, {beaten / passed:.0f} heartbeats a second: {share:.1f} % of a core, {used / beaten * 1e6:.0f} µs each"


def report(found: dict[str, dict[str, list[float]]], options: argparse.Namespace) -> None:
    """Print the table."""
    print(
        f"\n{options.streams} streams at once, {options.events} events each, one every {options.gap_ms:g} ms; ",
        end="",
    )
    print(
        f"{options.requests} plain requests on 8 connections; {options.rounds} interleaved rounds; ", end=""
    )
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}.\n")
    print("| | CPU per streamed event, µs | CPU per small request, µs | added time to first event p50, ms |")
    print("| --- | --- | --- | --- |")
    for name, values in found.items():
        print(
            f"| {name} | {spread(values['event'], 1)} | {spread(values['request'], 1)} | {spread(values['first'], 3)} |"
        )
    if len(found) == 2:
        ours, theirs = found.values()
        ratios = {
            what: [a / b for a, b in zip(ours[what], theirs[what], strict=True) if b > 0]
            for what in ("event", "request")
        }
        print(f"| ratio of neighbours | {spread(ratios['event'], 2)} | {spread(ratios['request'], 2)} | |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument("--gap-ms", type=float, default=20.0)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--litellm", default="", help="instead: beside this program")
    parser.add_argument(
        "--hives", type=int, default=0, help="instead: so many simulated hives, for --seconds"
    )
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    if options.hives:
        with tempfile.TemporaryDirectory() as name, gateway(Path(name), 9, 1) as queen:
            print(asyncio.run(beat_as_hives(queen.admin, queen.pids[0], options.hives, options.seconds)))  # type: ignore[attr-defined]
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        argv = [sys.executable, "-c", UPSTREAM, str(options.gap_ms / 1000), str(options.events)]
        worker = stack.enter_context(child(argv, folder / "upstream.log", stdout=subprocess.PIPE))
        upstream = int(worker.stdout.readline())  # type: ignore[union-attr]
        proxies = [stack.enter_context(gateway(folder, upstream, options.streams * 2))]
        if options.litellm:
            proxies.append(stack.enter_context(litellm(options.litellm, folder, upstream)))
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(per_cpu_second(proxies, options))
            return
        if shutil.which("nginx"):
            proxies.append(stack.enter_context(nginx(folder, upstream)))
        else:
            print("nginx is not installed (apt-get install nginx-light): measured alone", file=sys.stderr)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(measure(proxies, options, upstream))
    report(found, options)


if __name__ == "__main__":
    main()
