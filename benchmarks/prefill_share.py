"""A long prompt arrives among running streams: its time to first token against the others' gaps between tokens.

    .venv/bin/python benchmarks/prefill_share.py [--model FILE] [--rounds N] [--threads N] [--streams N] [--prompt-tokens N]

One worker for each `--prefill-share`, and llama.cpp's own server from the same library, each asked in turn with the
same prompts. Ratios are medians over rounds against that server in the same round. Prints Markdown, for
docs/performance.md.
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import uvloop

from beside.client import Answer, ask, chat_request
from beside.servers import Server, reference, skep_worker
from skep.runtime.models import TINY

SHARES = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
CONTEXT, STREAM_TOKENS = 8192, 4000
UNDER_WAY_S = 0.3
REFERENCE = "llama.cpp's server"
WORDS = [
    "sky",
    "grass",
    "sun",
    "sea",
    "snow",
    "coal",
    "rose",
    "sand",
    "tiger",
    "river",
    "count",
    "from",
    "to",
    "say",
    "what",
    "color",
    "is",
    "the",
]


@dataclass(frozen=True)
class Point:
    """One arrival. Times in milliseconds."""

    first_token: float
    gap_p99: float
    gap_longest: float


def long_text(port: int, tokens: int, seed: int) -> str:
    """Return a text of about this many tokens that begins as no other does."""
    chooser = random.Random(seed)
    words = [str(seed), *(chooser.choice(WORDS) for _ in range(tokens))]
    body = json.dumps({"prompt": " ".join(words)}).encode()
    head = {"content-type": "application/json"}
    with urllib.request.urlopen(
        urllib.request.Request(f"http://127.0.0.1:{port}/tokenize", body, head)
    ) as reply:
        count = len(json.load(reply)["tokens"])
    return " ".join(words[: int(len(words) * tokens / count)])


async def arrival(server: Server, text: str, streams: int) -> Point:
    """Start the streams, let them run, send the prompt, and look at their gaps until its first token."""
    loop = asyncio.get_running_loop()
    running = [
        await loop.create_connection(
            lambda index=index: Answer(
                chat_request(server.port, f"count from {index} to 99", STREAM_TOKENS), loop.create_future()
            ),
            "127.0.0.1",
            server.port,
        )
        for index in range(streams)
    ]
    answers = [answer for _, answer in running]
    while not all(answer.first_s for answer in answers):  # noqa: ASYNC110 - the client has no event to wait for
        await asyncio.sleep(0.01)
    await asyncio.sleep(UNDER_WAY_S)
    seen = [len(answer.gaps_s) for answer in answers]
    arriving = await ask(server, text, 2)
    gaps = [gap * 1e3 for answer, start in zip(answers, seen, strict=True) for gap in answer.gaps_s[start:]]
    for transport, _ in running:
        transport.abort()
    await asyncio.sleep(UNDER_WAY_S)  # Cancelled jobs free their slots before the next arrival.
    first_ms = (arriving.first_s - arriving.sent_s) * 1e3
    return Point(first_ms, statistics.quantiles(gaps, n=100)[98], max(gaps))


async def measure(args: argparse.Namespace) -> dict[str, list[Point]]:
    shape = {"threads": args.threads, "slots": args.streams + 1, "context": CONTEXT}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {REFERENCE: stack.enter_context(reference(args.model, folder, **shape))}
        for share in SHARES:
            extra = ("--prefill-share", str(share))
            name = f"skep, share {share:g}" + (" (default)" if share == 0.5 else "")
            servers[name] = stack.enter_context(skep_worker(args.model, folder, extra=extra, **shape))
        points: dict[str, list[Point]] = {name: [] for name in servers}
        tokenizer = next(server for name, server in servers.items() if name != REFERENCE)
        for number in range(args.rounds + 1):
            text = long_text(tokenizer.port, args.prompt_tokens, number)
            for name, server in servers.items():
                point = await arrival(server, text, args.streams)
                if number:  # The first round warms up.
                    points[name].append(point)
    return points


def row(name: str, found: list[Point], reference_points: list[Point]) -> str:
    def ratio(field: str) -> float:
        pairs = zip(found, reference_points, strict=True)
        return statistics.median(getattr(one, field) / getattr(other, field) for one, other in pairs)

    first, gap = (
        statistics.median(getattr(one, field) for one in found) for field in ("first_token", "gap_p99")
    )
    longest = max(one.gap_longest for one in found)
    return f"| {name} | {first:.0f} | {ratio('first_token'):.2f}× | {gap:.1f} | {ratio('gap_p99'):.2f}× | {longest:.0f} |"


def main(args: argparse.Namespace) -> None:
    points = uvloop.run(measure(args))
    print(f"`{Path(args.model).name}`, {args.threads} thread(s), {args.streams} running streams, a prompt of about "
          f"{args.prompt_tokens} tokens, {args.rounds} rounds.\n")  # fmt: skip
    print(
        "| | first token of the arriving prompt, ms | ratio | gap between the others' tokens, ms: p99 | ratio | longest |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for name, found in points.items():
        print(row(name, found, points[REFERENCE]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(TINY))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=4096)
    main(parser.parse_args())
