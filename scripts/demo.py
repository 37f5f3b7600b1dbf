#!/usr/bin/env python3
"""The main job, shown: a fleet on this machine, a streamed answer, a cancel that frees its slot, a clean stop.

Every line that says what was proved is checked here; the first one that does not hold ends the demo with exit code 1.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil

QUESTION, ANSWER = "what color is the sky?", "the sky is blue."
LONG = "say tiger for ever"  # Goes on until it is cancelled or its context is full: it does not end by itself here.
READY_S_MAX, FREE_S_MAX, STOP_S_MAX = 60.0, 2.0, 5.0
TRIES_MAX = 20
GREEN, DIM, BOLD, END = ("\033[32m", "\033[2m", "\033[1m", "\033[0m") if sys.stdout.isatty() else ("",) * 4


def say(text: str = "", end: str = "\n") -> None:
    print(text, end=end, flush=True)


def proved(text: str) -> None:
    say(f"  {GREEN}✓{END} {text}")


def body(question: str, **more: object) -> dict[str, object]:
    return {"model": "tiny", "messages": [{"role": "user", "content": question}], "temperature": 0, **more}


async def start(home: str) -> tuple[asyncio.subprocess.Process, str]:
    skep = Path(sys.executable).with_name("skep")
    process = await asyncio.create_subprocess_exec(
        str(skep),
        "up",
        "--port",
        "0",
        "--quiet",
        env={**os.environ, "SKEP_HOME": home},
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    async with asyncio.timeout(READY_S_MAX):
        line = (await process.stdout.readline()).decode().strip()
    if not line:
        raise SystemExit(f"skep up ended with {await process.wait()}")
    return process, line


async def pieces(answer: aiohttp.ClientResponse) -> AsyncIterator[str]:
    answer.raise_for_status()
    async for raw in answer.content:
        data = raw.decode().removeprefix("data: ").strip()
        if not data or data == "[DONE]":
            continue
        for choice in json.loads(data)["choices"]:
            if text := choice["delta"].get("content"):
                yield text


async def stream_an_answer(client: aiohttp.ClientSession, url: str) -> None:
    say(
        f"\n{BOLD}A chat answer, streamed through gateway, worker and llama.cpp{END}\n  you    {QUESTION}\n  tiny   ",
        end="",
    )
    text, count = "", 0
    async with client.post(f"{url}/chat/completions", json=body(QUESTION, stream=True)) as answer:
        async for piece in pieces(answer):
            say(piece, end="")
            text += piece
            count += 1
    say()
    assert text == ANSWER, f"{text!r} is not {ANSWER!r}"
    proved(f"{count} events, and the text is right")
    async with client.post(f"{url}/chat/completions", json=body(QUESTION)) as answer:
        plain = (await answer.json())["choices"][0]["message"]["content"]
    assert plain == text, f"{plain!r} is not {text!r}"
    proved("the answer that is not streamed says the same")


async def eight_at_once(client: aiohttp.ClientSession, url: str) -> None:
    say(f"\n{BOLD}Eight clients at once on four slots{END}")

    async def one() -> str:
        async with client.post(f"{url}/chat/completions", json=body(QUESTION)) as answer:
            return str((await answer.json())["choices"][0]["message"]["content"])

    began = time.monotonic()
    answers = await asyncio.gather(*(one() for _ in range(8)))
    assert set(answers) == {ANSWER}, answers
    proved(f"eight right answers in {(time.monotonic() - began) * 1000:.0f} ms")


def workers_of(process: asyncio.subprocess.Process) -> list[psutil.Process]:
    family = psutil.Process(process.pid).children(recursive=True)
    return [one for one in family if "worker" in one.cmdline()]


async def slots(client: aiohttp.ClientSession, port: int) -> tuple[int, int]:
    """Return how many slots are free, and how many there are."""
    async with client.get(f"http://127.0.0.1:{port}/health") as answer:
        found = await answer.json()
        return int(found["slots_free"]), int(found["slots_total"])


async def all_free(client: aiohttp.ClientSession, port: int) -> None:
    async with asyncio.timeout(FREE_S_MAX):
        while len(set(await slots(client, port))) > 1:
            await asyncio.sleep(0.005)


async def cancel_frees_its_slot(
    client: aiohttp.ClientSession, url: str, process: asyncio.subprocess.Process
) -> None:
    say(f"\n{BOLD}A client that goes away{END}")
    worker = workers_of(process)[0]
    port = next(c.laddr.port for c in worker.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN)
    for _ in range(TRIES_MAX):
        await all_free(client, port)
        answer = await client.post(f"{url}/chat/completions", json=body(LONG, stream=True))
        got = [text async for text in first(pieces(answer), 5)]
        free, total = await slots(client, port)
        if free < total:
            break
        answer.close()  # So small a model can be done before we look, where other programs take the cores.
    assert free < total, "no stream held a slot: nothing would be shown by a free one"
    answer.close()
    began = time.monotonic()
    await all_free(client, port)
    proved(f"streamed {''.join(got)!r}…, with {total - free} of {total} slots taken; then hung up")
    proved(
        f"its slot was free again {(time.monotonic() - began) * 1000:.0f} ms later: the cancel went through every hop"
    )


async def first(texts: AsyncIterator[str], count: int) -> AsyncIterator[str]:
    seen = 0
    async for text in texts:
        yield text
        seen += 1
        if seen == count:
            return


async def a_clean_stop(process: asyncio.subprocess.Process, home: str) -> None:
    say(f"\n{BOLD}Ctrl-C{END}")
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(STOP_S_MAX):
        await process.wait()
    took_s = time.monotonic() - began
    _, alive = psutil.wait_procs(family, timeout=1.0)
    assert not alive, f"left behind: {alive}"
    strangers = [one for one in psutil.process_iter() if is_started_in(one, home)]
    assert not strangers, f"left behind: {strangers}"
    handoffs = list(Path(home).rglob("engines/*.json"))
    assert not handoffs, f"handoff files left behind: {handoffs}"
    proved(f"{len(family)} processes ended in {took_s:.1f} s, no handoff file is left")


def is_started_in(process: psutil.Process, home: str) -> bool:
    """True for whatever was started with this SKEP_HOME, whoever its parent is by now."""
    try:
        return process.environ().get("SKEP_HOME") == home and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


async def main() -> None:
    say(f"{BOLD}skep up{END}: queen, hive and a worker with the tiny model, on loopback")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="skep-demo-") as home:
        process, url = await start(home)
        try:
            proved(f"ready after {time.monotonic() - began:.1f} s at {url}")
            for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                role = next(
                    (
                        word
                        for word in ("worker", "hive", "queen", "guard", "up")
                        if any(word in part for part in one.cmdline()[2:])
                    ),
                    "",
                )
                say(f"    {DIM}{role:7}{END} pid {one.pid}  {one.memory_info().rss >> 20} MiB")
            async with aiohttp.ClientSession() as client:
                await stream_an_answer(client, url)
                await eight_at_once(client, url)
                await cancel_frees_its_slot(client, url, process)
            await a_clean_stop(process, home)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    say(
        f"\nYours now:  .venv/bin/skep up   then   .venv/bin/skep chat      ({time.monotonic() - began:.0f} s in all)"
    )


if __name__ == "__main__":
    asyncio.run(main())
