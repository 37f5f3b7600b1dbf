"""Several queens over a real etcd, and one over SQLite that restarts: who leads, who knows, who goes on."""

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

BODY = {"model": "m", "messages": [{"role": "user", "content": "what color is the sky?"}]}
WAIT_S = 40


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


def registration(worker: str, node: str = "n1", **more) -> dict:
    replica = {
        "replica_id": "r0",
        "url": worker,
        "instance": "i",
        "state": "ready",
        "slots_total": 8,
        "slots_free": 8,
    }
    pool = {"pool_id": "p", "model": "m", "state": "ready", "replicas": [replica]}
    return {
        "node_id": node,
        "address": "http://127.0.0.1:9",
        "version": "0",
        "instance": "h",
        "pools": [pool],
        **more,
    }


async def ask(http, url: str) -> int:
    async with http.post(f"{url}/v1/chat/completions", json=BODY) as answer:
        await answer.read()
        return answer.status


async def beat_for_ever(http, admins: list[str], worker: str) -> None:
    """A hive that beats to the first queen that answers."""
    for sequence in itertools.count(1):
        body = {"instance": "h", "sequence": sequence, "pools": registration(worker)["pools"]}
        for admin in admins:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.post(f"{admin}/v2/nodes/n1/heartbeat", json=body) as answer:
                    if answer.ok:
                        break
        await asyncio.sleep(0.5)


async def facts(http, url: str) -> dict:
    async with http.get(f"{url}/health") as answer:
        return await answer.json()


async def until(check) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await check():
            await asyncio.sleep(0.05)


async def leader_of(http, queens) -> int | None:
    leading = [n for n, queen in enumerate(queens) if (await facts(http, queen.admin))["leader"]]
    assert len(leading) <= 1, "two leaders"
    return leading[0] if leading else None


async def test_every_queen_serves_every_node_one_leads_and_another_takes_over(
    http, start_etcd, start_queen, start_worker
):
    store = f"etcd:{start_etcd().urls[0]}"
    queens = [start_queen("--store", store), start_queen("--store", store)]
    worker, _ = start_worker()

    async def has_leader() -> bool:
        return await leader_of(http, queens) is not None

    await until(has_leader)
    async with http.post(f"{queens[0].admin}/v2/nodes/register", json=registration(worker)) as answer:
        assert answer.status == 200
    beating = asyncio.create_task(beat_for_ever(http, [queen.admin for queen in queens], worker))

    async def other_knows() -> bool:
        async with http.get(f"{queens[1].admin}/v2/nodes") as answer:
            return [one["state"] for one in await answer.json()] == ["alive"]

    await until(other_knows)
    assert [await ask(http, queen.gateway) for queen in queens] == [200, 200]
    async with http.post(f"{queens[1].admin}/v2/nodes/n1/cordon") as answer:
        assert answer.status == 200

    async def first_knows() -> bool:
        async with http.get(f"{queens[0].admin}/v2/nodes") as answer:
            return [one["state"] for one in await answer.json()] == ["cordoned"]

    await until(first_knows)
    async with http.post(f"{queens[0].admin}/v2/nodes/n1/uncordon") as answer:
        assert answer.status == 200

    async def uncordoned() -> bool:
        async with http.get(f"{queens[1].admin}/v2/nodes") as answer:
            return [one["state"] for one in await answer.json()] == ["alive"]

    await until(uncordoned)
    leader = await leader_of(http, queens)
    other = queens[1 - leader]
    queens[leader].child.send_signal(signal.SIGKILL)
    killed_s = time.monotonic()
    assert await ask(http, other.gateway) == 200

    async def leads() -> bool:
        assert await ask(http, other.gateway) == 200
        return (await facts(http, other.admin))["leader"]

    await until(leads)
    assert time.monotonic() - killed_s < 10
    beating.cancel()
    await asyncio.wait([beating])


async def test_without_its_store_a_queen_runs_on_what_it_knew_and_says_so(
    http, start_etcd, start_queen, start_worker
):
    cluster = start_etcd()
    queen = start_queen("--store", f"etcd:{cluster.urls[0]}")
    worker, _ = start_worker()
    async with http.post(f"{queen.admin}/v2/nodes/register", json=registration(worker)) as answer:
        assert answer.status == 200
    async with http.post(f"{queen.admin}/v2/keys", json={"name": "ci"}) as answer:
        key = (await answer.json())["key"]
    bearer = {"authorization": f"Bearer {key}"}

    async def asks_for_keys() -> bool:
        return await ask(http, queen.gateway) == 401

    await until(asks_for_keys)
    cluster.kill(0)

    async def degraded() -> bool:
        told = await facts(http, queen.admin)
        return told["status"] == "degraded" and "last-known" in told["store"] and not told["leader"]

    await until(degraded)
    async with http.post(f"{queen.gateway}/v1/chat/completions", json=BODY, headers=bearer) as answer:
        assert answer.status == 200
    assert await ask(http, queen.gateway) == 401
    beat = {"instance": "h", "sequence": 5, "pools": registration(worker)["pools"]}
    async with http.post(f"{queen.admin}/v2/nodes/n1/heartbeat", json=beat) as answer:
        assert answer.status == 200
    async with http.post(f"{queen.admin}/v2/keys", json={"name": "no"}) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (503, "store_unavailable")
    cluster.start(0)

    async def well() -> bool:
        told = await facts(http, queen.admin)
        return told["status"] == "ok" and told["leader"]

    await until(well)
    async with http.get(f"{queen.admin}/v2/keys") as answer:
        assert (await answer.json())[0]["usage"]["requests"] >= 0


async def test_a_queen_that_restarts_waits_for_the_nodes_it_knew_instead_of_saying_404(
    http, tmp_path, start_queen, start_worker
):
    store = f"sqlite:{tmp_path}/queen.db"
    worker, _ = start_worker()
    first = start_queen("--store", store)
    async with http.post(f"{first.admin}/v2/nodes/register", json=registration(worker)) as answer:
        assert answer.status == 200
    assert await ask(http, first.gateway) == 200
    first.child.send_signal(signal.SIGTERM)
    assert first.child.wait(10) == 0
    second = start_queen("--store", store)
    asked = asyncio.create_task(ask(http, second.gateway))
    async with http.post(
        f"{second.admin}/v2/nodes/n1/heartbeat", json={"instance": "h", "sequence": 9}
    ) as answer:
        assert answer.status == 404
    assert not asked.done()
    async with http.post(f"{second.admin}/v2/nodes/register", json=registration(worker)) as answer:
        assert answer.status == 200
    assert await asked == 200


async def test_losing_a_member_of_etcd_fails_no_request(http, start_etcd, start_queen, start_worker):
    cluster = start_etcd(3)
    queen = start_queen("--store", f"etcd:{','.join(cluster.urls)}")
    worker, _ = start_worker()
    async with http.post(f"{queen.admin}/v2/nodes/register", json=registration(worker)) as answer:
        assert answer.status == 200
    cluster.kill(cluster.leader())

    async def writes() -> bool:
        assert await ask(http, queen.gateway) == 200
        async with http.post(f"{queen.admin}/v2/keys", json={"name": "later"}) as answer:
            return answer.status == 201

    await until(writes)


HIVE = """
[[model]]
name = "m"
ref = "fake:m"
aliases = ["nick"]
[[pool]]
id = "p"
model = "m"
backend = "fake"
devices = "cpu"
"""


async def test_a_hive_that_loses_its_queen_beats_to_the_next_and_no_new_request_fails(
    http, start_etcd, start_queen, start_hive
):
    store = f"etcd:{start_etcd().urls[0]}"
    first, second = start_queen("--store", store), start_queen("--store", store)
    start_hive("n1", f"{first.admin},{second.admin}", HIVE)

    async def first_serves() -> bool:
        return await ask(http, first.gateway) == 200

    await until(first_serves)

    async def second_serves() -> bool:
        return await ask(http, second.gateway) == 200

    await until(second_serves)
    first.child.send_signal(signal.SIGKILL)
    first.child.wait(10)
    killed_s = time.monotonic()

    async def is_beaten_to() -> bool:
        assert await ask(http, second.gateway) == 200
        async with http.get(f"{second.admin}/v2/nodes") as answer:
            (node,) = await answer.json()
        return time.monotonic() - killed_s > 3 and node["seen_s_ago"] < 1.5

    await until(is_beaten_to)
    async with http.post(f"{second.gateway}/v1/chat/completions", json=BODY | {"model": "nick"}) as answer:
        assert answer.status == 200
