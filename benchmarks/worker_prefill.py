"""A 4k-token prompt arrives among running streams: what the others' tokens pay for its first token.

    .venv/bin/python benchmarks/worker_prefill.py [--model FILE] [--streams N] [--rounds N]

For each `--prefill-share` one worker, and the installed library's own server beside it, asked in turn. Prints Markdown:
the 99th percentile of the running streams' inter-token time while the prompt is read, and the prompt's first token.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parent))
import worker as bench

SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)
CONTEXT = 8192


@dataclass
class Point:
    """One arrival."""

    gap_p99_ms: float
    first_token_ms: float


async def arrival(server: bench.Server, streams: int, words: int, number: int) -> Point:
    """Start the streams, let them run, send the long prompt, and look at the gaps while it was being read."""
    loop = asyncio.get_running_loop()
    answers: list[bench.Answer] = []

    def running(index: int) -> bench.Answer:
        request = bench.chat_request(server.port, bench.question(index), 4000)
        answer = bench.Answer(request, loop.create_future())
        answers.append(answer)
        return answer

    links = [
        await loop.create_connection(lambda index=index: running(index), "127.0.0.1", server.port)
        for index in range(streams)
    ]
    while not all(answer.first_s for answer in answers):  # noqa: ASYNC110 - the client has no event to wait for
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    seen = [len(answer.gaps_s) for answer in answers]
    text = f"{number} " + "what color is the sky? " * (words // 5)
    long = await bench.ask(server, text, 2)
    gaps = [gap for answer, start in zip(answers, seen, strict=True) for gap in answer.gaps_s[start:]]
    for transport, _ in links:
        transport.abort()
    await asyncio.sleep(0.3)  # Cancelled jobs free their slots before the next arrival.
    return Point(statistics.quantiles(gaps, n=100)[98] * 1e3, (long.first_s - long.sent_s) * 1e3)


async def main(args: argparse.Namespace) -> None:
    bench.SLOTS, bench.CONTEXT = args.streams + 1, CONTEXT
    print("| | inter-token p99 ms of the running | first token ms of the arriving |")
    print("| --- | --- | --- |")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {
            "llama.cpp's server": stack.enter_context(bench.reference(args.model, args.threads, folder))
        }
        for share in SHARES:
            extra = ("--prefill-share", str(share))
            server = stack.enter_context(bench.skep_worker(args.model, args.threads, folder, extra))
            servers[f"skep, share {share:g}"] = server
        points: dict[str, list[Point]] = {name: [] for name in servers}
        for number in range(args.rounds + 1):
            for name, server in servers.items():
                point = await arrival(server, args.streams, args.words, number)
                if number:  # The first one warms up.
                    points[name].append(point)
    for name, found in points.items():
        gap = statistics.median(one.gap_p99_ms for one in found)
        first = statistics.median(one.first_token_ms for one in found)
        print(f"| {name} | {gap:.1f} | {first:.0f} |")


def arguments() -> argparse.Namespace:
    from skep.runtime.models import TINY

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(TINY))
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--words", type=int, default=2900)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(given))
