"""The worker beside llama.cpp's own HTTP server, from the same library, on the same model and threads.

    .venv/bin/python benchmarks/worker.py [--model FILE] [--rounds N] [--tokens N] [--threads N]

Both run at once and are asked in turn (A, B, B, A, …), so that what else the machine does falls on both; figures are
medians of the ratios of neighbouring runs, with the range. Tokens are counted by the servers' own `usage`. CPU is user
plus system time of the server's process. Prints Markdown, for docs/performance.md.
"""

import argparse
import asyncio
import os
import platform
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import uvloop

from beside.client import ask
from beside.servers import Server, reference, skep_worker

STREAMS = (1, 8, 32)
SLOTS, CONTEXT = 32, 1024


COLORS = ("sky", "grass", "sun", "sea", "snow", "coal", "rose", "sand")


def question(number: int) -> str:
    return f"what color is the {COLORS[number % len(COLORS)]}? " + "and " * (number % 5)


# What is measured ----------------------------------------------------------------------------------------------------


@dataclass
class Throughput:
    """One run."""

    tokens_per_s: float
    cpu_us_per_token: float


async def throughput(server: Server, streams: int, tokens: int, requests: int) -> Throughput:
    cpu, begun = server.cpu_s(), time.perf_counter()

    async def one(number: int) -> int:
        return sum([(await ask(server, question(number + turn), tokens)).tokens for turn in range(requests)])

    counts = await asyncio.gather(*(one(number) for number in range(streams)))
    wall, total = time.perf_counter() - begun, sum(counts)
    return Throughput(total / wall, (server.cpu_s() - cpu) / total * 1e6)


async def first_token_ms(server: Server, number: int) -> float:
    answer = await ask(server, question(number), 4)
    return (answer.first_s - answer.sent_s) * 1e3


async def health_times_ms(server: Server, streams: int, tokens: int) -> list[float]:
    """Ask for health from a process of its own, as the client that reads the streams is busy itself."""
    load = asyncio.gather(*(ask(server, question(number), tokens) for number in range(streams)))
    probe = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--probe-health", str(server.port), stdout=asyncio.subprocess.PIPE
    )
    await load
    probe.terminate()
    out, _ = await probe.communicate()
    return [float(one) for one in out.split()]


def probe_health(port: int) -> None:
    """Ask until told to stop, and print each time in ms."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with socket.create_connection(("127.0.0.1", port)) as link:
        while True:
            begun, reply = time.perf_counter(), b""
            link.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            while not is_whole(reply):
                if not (chunk := link.recv(65536)):
                    return
                reply += chunk
            print((time.perf_counter() - begun) * 1e3, flush=True)
            time.sleep(0.005)


def is_whole(reply: bytes) -> bool:
    """True when a response with a content length is complete."""
    head, end, body = reply.partition(b"\r\n\r\n")
    return bool(end) and len(body) >= int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])


def in_turn(rounds: int) -> Iterator[tuple[int, int]]:
    """Yield pairs in the order A B, B A, and so on."""
    for number in range(rounds):
        yield (0, 1) if number % 2 == 0 else (1, 0)


def ratio_row(name: str, ours: list[float], theirs: list[float], form: str) -> str:
    ratios = sorted(one / other for one, other in zip(ours, theirs, strict=True))
    mid, low, high = statistics.median(ratios), ratios[0], ratios[-1]
    return (
        f"| {name} | {statistics.median(ours):{form}} | {statistics.median(theirs):{form}} "
        f"| **{mid:.2f}×** | {low:.2f}–{high:.2f} |"
    )


async def measure(servers: list[Server], args: argparse.Namespace) -> Iterator[str]:
    rows: list[str] = []
    for server in servers:
        await throughput(server, 4, 32, 1)  # Warm up: caches, templates, lazily loaded code.
    for streams in STREAMS:
        found: list[list[Throughput]] = [[], []]
        requests = max(1, 24 // streams)
        for order in in_turn(args.rounds):
            for index in order:
                found[index].append(await throughput(servers[index], streams, args.tokens, requests))
        speeds = [[one.tokens_per_s for one in each] for each in found]
        costs = [[one.cpu_us_per_token for one in each] for each in found]
        rows.append(ratio_row(f"tokens/s, {streams} streams", *speeds, ".0f"))
        rows.append(ratio_row(f"CPU µs a token, {streams} streams", *costs, ".0f"))
    for name, turn in (("new prompt", lambda number: number), ("cached prefix", lambda _number: 3)):
        rows.append(
            ratio_row(f"first token ms, idle, {name}", *await first_tokens(servers, turn, args.rounds), ".2f")
        )
    return iter(rows)


async def first_tokens(servers: list[Server], turn: Callable[[int], int], rounds: int) -> list[list[float]]:
    found: list[list[float]] = [[], []]
    for number, order in enumerate(in_turn(rounds * 8)):
        for index in order:
            found[index].append(await first_token_ms(servers[index], turn(number)))
    return found


async def main(args: argparse.Namespace) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shape = {"threads": args.threads, "slots": SLOTS, "context": CONTEXT}
        cpu_to_ready = []
        for _ in range(3):
            with skep_worker(args.model, folder, **shape) as one:
                cpu_to_ready.append(one.cpu_to_ready_s)
        ours = stack.enter_context(skep_worker(args.model, folder, **shape))
        cpu_to_ready.append(ours.cpu_to_ready_s)
        theirs = stack.enter_context(reference(args.model, folder, **shape))
        rows = list(await measure([ours, theirs], args))
        times_ms = await health_times_ms(ours, 32, args.tokens * 4)
    print(f"`{Path(args.model).name}`, {args.threads} thread(s), {SLOTS} slots, context {CONTEXT}, "
          f"{args.tokens} tokens an answer, {args.rounds} rounds; {os.cpu_count()} cores, {platform.machine()}, "
          f"Python {platform.python_version()}.\n")  # fmt: skip
    print("| | skep | llama.cpp's server | ratio | range |")
    print("| --- | --- | --- | --- | --- |")
    print("\n".join(rows))
    print(f"\n- CPU from start to ready: {statistics.median(cpu_to_ready):.2f} s "
          f"({min(cpu_to_ready):.2f}–{max(cpu_to_ready):.2f}; reference {theirs.cpu_to_ready_s:.2f} s).")  # fmt: skip
    p99_ms = statistics.quantiles(times_ms, n=100)[98]
    print(f"- `/health` while 32 streams decode: median {statistics.median(times_ms):.2f} ms, p99 {p99_ms:.2f} ms "
          f"over {len(times_ms)} requests.")  # fmt: skip


def arguments() -> argparse.Namespace:
    from skep.runtime.models import TINY

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(TINY))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--probe-health", type=int, default=0, metavar="PORT", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    if given.probe_health:
        probe_health(given.probe_health)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(given))
