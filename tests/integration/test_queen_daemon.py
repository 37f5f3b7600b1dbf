"""`skep queen` as a real process: its admin API, and the official client against its gateway."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import aiohttp
import openai
import pytest


@pytest.fixture
def daemon(start_queen):
    return start_queen()


@pytest.fixture
def worker(start_worker) -> str:
    return start_worker()[0]


@pytest.fixture
async def admin(daemon) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(daemon.admin) as session:
        yield session


def pool(worker: str, *, state: str = "ready", slots: int = 4, model: str = "m") -> dict:
    replica = {
        "replica_id": "r0",
        "url": worker,
        "instance": "i",
        "state": "ready",
        "slots_total": slots,
        "slots_free": slots,
    }
    return {"pool_id": f"pool-{model}", "model": model, "state": state, "replicas": [replica]}


async def register(admin: aiohttp.ClientSession, *pools: dict, node: str = "n1") -> None:
    body = {"node_id": node, "address": "http://127.0.0.1:9", "version": "0", "pools": pools, "instance": "h"}
    async with admin.post("/v2/nodes/register", json=body) as answer:
        assert answer.status == 200, await answer.text()


async def test_a_node_registers_beats_is_listed_and_leaves(admin, worker):
    await register(admin, pool(worker))
    beat = {
        "instance": "h",
        "sequence": 1,
        "pools": [pool(worker, state="draining")],
        "a_field_of_tomorrow": 1,
    }
    async with admin.post("/v2/nodes/n1/heartbeat", json=beat) as answer:
        assert answer.status == 200
        assert (await answer.json())["next_heartbeat_ms"] == 1_000
    async with admin.get("/v2/nodes") as answer:
        (node,) = await answer.json()
        assert (node["node_id"], node["state"], node["pools"]) == ("n1", "alive", ["pool-m"])
    async with admin.get("/v2/pools") as answer:
        (one,) = await answer.json()
        assert one["state"] == "draining"
        assert "token" not in json.dumps(one)
    async with admin.delete("/v2/nodes/n1") as answer:
        assert answer.status == 204
    async with admin.post("/v2/nodes/n1/heartbeat", json=beat) as answer:
        assert answer.status == 404
        assert (await answer.json())["error"]["code"] == "node_unknown"
    assert [line for line in (await _metrics(admin)).splitlines() if line.startswith("skep_unknown")] == [
        "skep_unknown_fields_total 2.0"
    ]


async def test_health_ready_metrics_and_the_document(admin, worker):
    async with admin.get("/health") as answer:
        assert (await answer.json())["status"] == "ok"
    async with admin.get("/ready") as answer:
        assert answer.status == 503
    await register(admin, pool(worker))
    async with admin.get("/ready") as answer:
        assert (answer.status, (await answer.json())["models"]) == (200, ["m"])
    async with admin.get("/metrics") as answer:
        assert 'skep_nodes{state="alive"} 1.0' in await answer.text()
    async with admin.get("/schema") as answer:
        document = await answer.json()
        assert "/v2/nodes/register" in document["paths"]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{",
        '{"node_id":"../x","address":"a","version":"1"}',
        '{"node_id":"n","address":"a","version":"1","pools":[{}]}',
    ],
)
async def test_a_malformed_registration_is_400_and_registers_nothing(admin, body):
    async with admin.post("/v2/nodes/register", data=body) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["code"] == "invalid_request"
    async with admin.get("/v2/nodes") as answer:
        assert await answer.json() == []


async def test_a_cordoned_node_gets_no_new_work_and_gets_it_again(admin, worker, client):
    await register(admin, pool(worker))
    async with admin.post("/v2/nodes/n1/cordon") as answer:
        assert (await answer.json())["state"] == "cordoned"
    with pytest.raises(openai.InternalServerError, match="cordoned"):
        await client.with_options(max_retries=0).chat.completions.create(model="m", messages=ASK)
    async with admin.post("/v2/nodes/n1/uncordon") as answer:
        assert (await answer.json())["state"] == "alive"
    assert (await client.chat.completions.create(model="m", messages=ASK)).choices[
        0
    ].message.content == "the sky is blue."


ASK = [{"role": "user", "content": "what color is the sky?"}]


@pytest.fixture
async def client(daemon) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{daemon.gateway}/v1", api_key="any") as made:
        yield made


async def state(worker: str) -> dict:
    async with aiohttp.ClientSession() as session, session.get(f"{worker}/state") as answer:
        return await answer.json()


async def until_idle(worker: str) -> None:
    async with asyncio.timeout(5):
        while (await state(worker))["running"]:
            await asyncio.sleep(0.01)


async def test_the_official_client_plain(admin, worker, client):
    await register(admin, pool(worker))
    answer = await client.chat.completions.create(model="m", messages=ASK)
    assert answer.choices[0].message.content == "the sky is blue."
    assert answer.usage.total_tokens == 9
    assert [model.id async for model in client.models.list()] == ["m"]


async def test_the_official_client_streaming_eight_at_once(admin, worker, client):
    await register(admin, pool(worker))

    async def ask() -> str:
        stream = await client.chat.completions.create(model="m", messages=ASK, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert await asyncio.gather(*(ask() for _ in range(8))) == ["the sky is blue."] * 8


async def test_the_official_client_closing_a_stream_cancels_at_the_worker(admin, worker, client):
    await register(admin, pool(worker))
    stream = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "for ever"}], stream=True
    )
    async for _ in stream:
        break
    assert (await state(worker))["running"] == 1
    await stream.close()
    await until_idle(worker)
    assert (await state(worker))["cancelled"] == 1


async def test_the_official_client_timing_out_cancels_at_the_worker(admin, worker, client):
    await register(admin, pool(worker))
    with pytest.raises(openai.APITimeoutError):
        await client.with_options(timeout=0.3, max_retries=0).chat.completions.create(
            model="m", messages=[{"role": "user", "content": "for ever"}]
        )
    await until_idle(worker)


async def test_the_official_client_sees_a_broken_stream_as_an_error(admin, worker, client):
    await register(admin, pool(worker))
    stream = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "die"}], stream=True
    )
    got = []

    async def read() -> None:
        async for chunk in stream:
            got.append(chunk.choices[0].delta.content)

    with pytest.raises(openai.APIError, match="broke off"):
        await read()
    assert got == ["the ", "sky "]


async def test_the_official_client_gets_typed_errors(admin, worker, client):
    await register(admin, pool(worker), pool(worker, model="m-fail"))
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="nope", messages=ASK)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        await client.chat.completions.create(model="m-fail", messages=ASK)
    assert bad.value.code == "context_length_exceeded"


async def test_the_official_client_retries_until_a_pool_is_there(admin, worker, daemon):
    async with openai.AsyncOpenAI(base_url=f"{daemon.gateway}/v1", api_key="any", max_retries=3) as client:
        body = pool(worker, state="unready") | {"replicas": [], "last_error": "the disk is full"}
        await register(admin, body)
        asked = asyncio.create_task(client.chat.completions.create(model="m", messages=ASK))
        async with asyncio.timeout(10):
            while 'outcome="error"' not in await _metrics(admin):
                await asyncio.sleep(0.01)
        await register(admin, pool(worker))
        assert (await asked).choices[0].message.content == "the sky is blue."


async def _metrics(admin) -> str:
    async with admin.get("/metrics") as answer:
        return await answer.text()


def test_sigterm_ends_it_cleanly_and_a_port_in_use_is_one_line(daemon, tmp_path):
    port = daemon.gateway.rpartition(":")[2]
    argv = [sys.executable, "-m", "skep.cli.main", "queen", "--bind", f"127.0.0.1:{port}"]
    second = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert f"port {port}" in second.stderr
    assert second.stderr.count("\n") == 1
    daemon.child.send_signal(signal.SIGTERM)
    assert daemon.child.wait(10) == 0


def test_binding_the_world_without_a_token_is_refused():
    argv = [
        sys.executable,
        "-m",
        "skep.cli.main",
        "queen",
        "--bind",
        "127.0.0.1:0",
        "--admin-bind",
        "0.0.0.0:0",
    ]
    refused = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert "token" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_the_admin_token_is_asked_for(tmp_path, start_queen):
    token = tmp_path / "token"
    token.write_text("correct horse\n")

    async def ask(url: str) -> list[int]:
        async with aiohttp.ClientSession(url) as session:
            found = []
            for given in (None, "wrong", "correct horse"):
                headers = {"authorization": f"Bearer {given}"} if given else {}
                async with session.get("/v2/nodes", headers=headers) as answer:
                    found.append(answer.status)
            async with session.get("/health") as answer:
                found.append(answer.status)
            return found

    daemon = start_queen("--token-file", str(token))
    assert asyncio.run(ask(daemon.admin)) == [401, 401, 200, 200]
    assert "correct" not in daemon.log.read_text()


async def test_a_gateway_off_loopback_answers_to_keys_alone(start_queen, tmp_path):
    token = tmp_path / "token"
    token.write_text("correct horse")
    queen = start_queen("--bind", "0.0.0.0:0", "--token-file", str(token))
    gateway = queen.gateway.replace("0.0.0.0", "127.0.0.1")
    async with aiohttp.ClientSession() as session:
        for headers in ({}, {"authorization": "Bearer correct horse"}):
            async with session.get(f"{gateway}/v1/models", headers=headers) as answer:
                assert answer.status == 401
        async with session.post(
            f"{queen.admin}/v2/keys", json={"name": "x"}, headers={"authorization": "Bearer correct horse"}
        ) as answer:
            key = (await answer.json())["key"]
        async with asyncio.timeout(10):
            while True:
                async with session.get(
                    f"{gateway}/v1/models", headers={"authorization": f"Bearer {key}"}
                ) as answer:
                    if answer.status == 200:
                        break
