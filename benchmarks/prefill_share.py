"""A long prompt arrives among running streams: its time to first token against the others' gaps between tokens.

    .venv/bin/python benchmarks/prefill_share.py [--model FILE] [--rounds N] [--threads N] [--prompt-tokens N]

One worker for each `--prefill-share`, and llama.cpp's own server from the same library, each asked in turn. Prints
Markdown, for docs/performance.md.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvloop

from skep.runtime.models import TINY
from worker import Server, ask, free_port, process, wait_ready

SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)
STREAMS, SLOTS, CONTEXT = 4, 6, 6144
STREAM_TOKENS = 1500
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


@contextmanager
def skep_worker(share: float, args: argparse.Namespace, folder: Path) -> Iterator[Server]:
    port, log = free_port(), folder / f"skep-{share}.log"
    argv = [sys.executable, "-m", "skep.cli.main", "worker", "--model", args.model, "--port", str(port)]
    argv += ["--slots", str(SLOTS), "--context", str(CONTEXT), "--threads", str(args.threads)]
    argv += ["--served-name", "m", "--prefill-share", str(share)]
    with process(argv, log) as child:
        yield wait_ready(f"skep, share {share}", child, port, log)


@contextmanager
def reference(args: argparse.Namespace, folder: Path) -> Iterator[Server]:
    port, log = free_port(), folder / "reference.log"
    argv = [
        sys.executable,
        __file__,
        "--serve",
        str(port),
        "--model",
        args.model,
        "--threads",
        str(args.threads),
    ]
    with process(argv, log) as child:
        yield wait_ready("llama.cpp's server", child, port, log)


def serve_reference(args: argparse.Namespace) -> None:
    """Run the library's own HTTP server in this process, in its default shape."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = args.model
    params.n_parallel, params.n_ctx = SLOTS, SLOTS * CONTEXT
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = args.threads
    params.port, params.warmup = args.serve, True
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    while True:
        time.sleep(3600)


def long_text(port: int, tokens: int, seed: int) -> str:
    """Return a text of about this many tokens that begins as no other does."""
    chooser = random.Random(seed)
    words = [str(seed), *(chooser.choice(WORDS) for _ in range(tokens))]
    body = json.dumps({"model": "m", "prompt": " ".join(words), "content": " ".join(words)}).encode()
    head = {"content-type": "application/json"}
    with urllib.request.urlopen(
        urllib.request.Request(f"http://127.0.0.1:{port}/tokenize", body, head)
    ) as reply:
        count = len(json.load(reply)["tokens"])
    return " ".join(words[: int(len(words) * tokens / count)])


async def arrival(server: Server, text: str, number: int) -> tuple[float, list[float]]:
    """Return the arriving prompt's time to first token and the others' gaps meanwhile, in milliseconds."""
    running = [
        asyncio.ensure_future(ask(server, f"count from {index} to 99 {number}", STREAM_TOKENS))
        for index in range(STREAMS)
    ]
    await asyncio.sleep(0.15)
    arriving = await ask(server, text, 2)
    answers = await asyncio.gather(*running)
    gaps: list[float] = []
    for answer in answers:
        at = answer.first_s
        for gap in answer.gaps_s:
            at += gap
            if at >= arriving.sent_s and at - gap <= arriving.first_s:
                gaps.append(gap * 1e3)
    return (arriving.first_s - arriving.sent_s) * 1e3, gaps


async def main(args: argparse.Namespace) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {
            f"skep, share {share:g}": stack.enter_context(skep_worker(share, args, folder))
            for share in SHARES
        }
        servers["llama.cpp's server"] = stack.enter_context(reference(args, folder))
        port = servers[f"skep, share {SHARES[0]:g}"].port
        firsts: dict[str, list[float]] = {name: [] for name in servers}
        gaps: dict[str, list[float]] = {name: [] for name in servers}
        for number in range(args.rounds + 1):
            text = long_text(port, args.prompt_tokens, number)
            for name, server in servers.items():
                first, between = await arrival(server, text, number)
                if number:  # The first round warms up.
                    firsts[name].append(first)
                    gaps[name] += between
    print(f"`{Path(args.model).name}`, {args.threads} thread(s), {STREAMS} running streams, a prompt of about "
          f"{args.prompt_tokens} tokens, {args.rounds} rounds.\n")  # fmt: skip
    print(
        "| | first token of the arriving prompt, ms | gap between the others' tokens, ms: median | p99 | longest |"
    )
    print("| --- | --- | --- | --- | --- |")
    for name in servers:
        between = sorted(gaps[name])
        p99 = between[min(len(between) - 1, int(len(between) * 0.99))]
        print(f"| {name} | {statistics.median(firsts[name]):.0f} | {statistics.median(between):.2f} | {p99:.1f} "
              f"| {between[-1]:.1f} |")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(TINY))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompt-tokens", type=int, default=4096)
    parser.add_argument("--serve", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve_reference(given)
    else:
        uvloop.run(main(given))
