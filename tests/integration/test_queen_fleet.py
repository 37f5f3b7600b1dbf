"""The whole way with nothing stood in for: a queen, real hives, real workers (of the fake backend)."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator

import aiohttp
import openai
import pytest

WAIT_S = 60
POOL = """
[[model]]
name = "demo"
ref = "fake:demo?token_delay_ms=5&turn_tokens=400"
[[pool]]
id = "pool-0"
model = "demo"
backend = "fake"
devices = "cpu"
slots = 2
"""
ASK = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


async def get(http, url: str):
    async with http.get(url) as answer:
        return await answer.json()


async def until(check, why: str = "") -> None:
    try:
        async with asyncio.timeout(WAIT_S):
            while not await check():
                await asyncio.sleep(0.1)
    except TimeoutError:
        pytest.fail(f"not within {WAIT_S} s: {why}")


async def serving(http, queen) -> None:
    """Until the queen knows a model: a hive registers a moment after it answers."""

    async def knows() -> bool:
        return bool(await get(http, f"{queen.admin}/v2/models"))

    await until(knows, "the hive registers")


def client(queen, **more) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{queen.gateway}/v1", api_key="any", **more)


async def workers(http, hive) -> list[dict]:
    found = await get(http, f"{hive.url}/v2/pools")
    return [replica for pool in found["pools"] for replica in pool["replicas"]]


async def slots_free(http, hive) -> int:
    found = await get(http, f"{hive.url}/v2/pools")
    return sum(pool["jobs"] for pool in found["pools"])


async def test_killing_a_worker_in_a_stream_is_told_in_band_and_the_next_request_works(
    http, start_queen, start_hive
):
    queen = start_queen()
    hive = start_hive("n1", queen.admin, POOL)
    await serving(http, queen)
    async with client(queen, max_retries=0) as ask:
        first = await ask.chat.completions.create(model="demo", messages=ASK, max_tokens=5)
        assert first.usage.completion_tokens == 5
        stream = await ask.chat.completions.create(model="demo", messages=ASK, max_tokens=390, stream=True)
        pieces = aiter(stream)
        for _ in range(3):
            await anext(pieces)
        (worker,) = await workers(http, hive)
        os.kill(worker["pid"], signal.SIGKILL)

        async def rest() -> None:
            async for _ in pieces:
                pass

        with pytest.raises(openai.APIError, match="broke off"):
            await rest()
        again = await ask.chat.completions.create(model="demo", messages=ASK, max_tokens=5)
        assert again.usage.completion_tokens == 5
    (fresh,) = await workers(http, hive)
    assert fresh["pid"] != worker["pid"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_the_slot_at_the_engine(http, start_queen, start_hive, stream):
    queen = start_queen()
    # By itself the answer takes minutes: a slot that is free in seconds was freed by the cancel.
    hive = start_hive("n1", queen.admin, POOL.replace("token_delay_ms=5", "token_delay_ms=500"))
    await serving(http, queen)
    async with client(queen, max_retries=0) as ask:
        await ask.chat.completions.create(model="demo", messages=ASK, max_tokens=2)
        if stream:
            opened = await ask.chat.completions.create(
                model="demo", messages=ASK, max_tokens=390, stream=True
            )
            await anext(aiter(opened))
            await opened.close()
        else:
            with pytest.raises(openai.APITimeoutError):
                await ask.with_options(timeout=2.0).chat.completions.create(
                    model="demo", messages=ASK, max_tokens=390
                )
        (worker,) = await workers(http, hive)

        async def is_free() -> bool:
            told = await get(http, f"{worker['url']}/health")
            return told["slots_free"] == told["slots_total"]

        await until(is_free, "the slot is still held")


async def test_a_pool_declared_at_the_queen_is_placed_served_changed_and_ended(http, start_queen, start_hive):
    queen = start_queen()
    hives = {node: start_hive(node, queen.admin, POOL.partition("[[pool]]")[0]) for node in ("n1", "n2")}

    async def both() -> bool:
        return {node["state"] for node in await get(http, f"{queen.admin}/v2/nodes")} == {"alive"} and len(
            await get(http, f"{queen.admin}/v2/nodes")
        ) == 2

    await until(both, "both nodes register")
    pool = {"id": "anywhere", "model": "demo", "backend": "fake", "devices": "cpu", "slots": 2}
    async with http.post(f"{queen.admin}/v2/pools", json={"pool": pool}) as answer:
        assert answer.status == 202, await answer.text()
    async with client(queen, max_retries=5) as ask:

        async def is_assigned() -> bool:
            (declared,) = await get(http, f"{queen.admin}/v2/pools/declared")
            return declared["node_id"] is not None and bool(await get(http, f"{queen.admin}/v2/models"))

        await until(is_assigned, "the leader places it")
        assert (
            await ask.chat.completions.create(model="demo", messages=ASK, max_tokens=3)
        ).usage.completion_tokens == 3
        (declared,) = await get(http, f"{queen.admin}/v2/pools/declared")
        home = hives[declared["node_id"]]
        async with http.post(f"{queen.admin}/v2/pools", json={"pool": pool | {"replicas": 2}}) as answer:
            assert (await answer.json())["record"]["generation"] == declared["record"]["generation"] + 1

        async def has_two() -> bool:
            return [one["state"] for one in await workers(http, home)] == ["ready", "ready"]

        await until(has_two, "it is scaled to two")
        async with http.delete(f"{queen.admin}/v2/pools/anywhere") as answer:
            assert answer.status == 204

        async def is_gone() -> bool:
            return not await workers(http, home) and not await get(http, f"{queen.admin}/v2/pools/declared")

        await until(is_gone, "it is ended")


async def test_a_sleeping_pool_is_woken_by_a_request(http, start_queen, start_hive):
    queen = start_queen()
    hive = start_hive("n1", queen.admin, POOL + "ttl_s = 1.0\n")

    async def state() -> str:
        return (await get(http, f"{hive.url}/v2/pools"))["pools"][0]["state"]

    async def is_asleep() -> bool:
        return await state() == "idle"

    await until(is_asleep, "it falls asleep")
    async with client(queen, max_retries=0) as ask:
        assert (
            await ask.chat.completions.create(model="demo", messages=ASK, max_tokens=3)
        ).usage.completion_tokens == 3


async def test_logs_and_reasons_of_a_pool_come_through_the_queen(http, start_queen, start_hive):
    queen = start_queen()
    start_hive("n1", queen.admin, POOL)
    await serving(http, queen)
    async with client(queen, max_retries=0) as ask:
        await ask.chat.completions.create(model="demo", messages=ASK, max_tokens=2)
    async with http.get(f"{queen.admin}/v2/nodes/n1/pools/pool-0/logs") as answer:
        assert answer.status == 200
        assert "worker" in await answer.text()
    async with http.get(f"{queen.admin}/v2/nodes/n1/pools/pool-0/why") as answer:
        assert answer.status == 200
        json.loads(await answer.text())
    async with http.get(f"{queen.admin}/v2/nodes/none/pools/pool-0/why") as answer:
        assert answer.status == 404
