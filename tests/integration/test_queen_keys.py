"""Keys, from the command line to the gateway; the other commands that look at a queen; moving its store."""

import asyncio
import json
import os
import subprocess
import sys

import aiohttp
import openai
import pytest

ASK = [{"role": "user", "content": "what color is the sky?"}]


def skep(*argv: str, code: int = 0, **more) -> subprocess.CompletedProcess:
    env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "skep.cli.main", *argv],
        capture_output=True, text=True, timeout=60, check=False, env=env, **more,
    )  # fmt: skip
    assert done.returncode == code, done.stderr + done.stdout
    return done


async def register(admin: str, worker: str) -> None:
    replica = {
        "replica_id": "r0",
        "url": worker,
        "instance": "i",
        "state": "ready",
        "slots_total": 4,
        "slots_free": 4,
    }
    pools = [{"pool_id": "p", "model": "m", "state": "ready", "replicas": [replica]}]
    body = {"node_id": "n1", "address": "http://127.0.0.1:9", "version": "0", "instance": "h", "pools": pools}
    async with (
        aiohttp.ClientSession(admin) as session,
        session.post("/v2/nodes/register", json=body) as answer,
    ):
        assert answer.status == 200


async def make_key(admin: str, new: dict) -> str:
    async with aiohttp.ClientSession(admin) as session, session.post("/v2/keys", json=new) as answer:
        return (await answer.json())["key"]


def client(queen, key: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{queen.gateway}/v1", api_key=key, max_retries=0)


async def until_asked_for_a_key(queen) -> None:
    async with asyncio.timeout(10), aiohttp.ClientSession(queen.gateway) as session:
        while True:
            async with session.get("/v1/models") as answer:
                if answer.status == 401:
                    return


async def test_a_key_opens_counts_limits_and_closes(start_queen, start_worker):
    queen = start_queen()
    worker, _ = start_worker()
    await register(queen.admin, worker)
    async with client(queen, "anything") as anybody:
        await anybody.chat.completions.create(model="m", messages=ASK)
    made = await asyncio.to_thread(
        skep, "key", "--url", queen.admin, "create", "ci", "--requests-per-minute", "2"
    )
    key = made.stdout.strip()
    assert key.startswith("sk-skep-")
    await until_asked_for_a_key(queen)
    async with client(queen, "anything") as anybody:
        with pytest.raises(openai.AuthenticationError) as refused:
            await anybody.chat.completions.create(model="m", messages=ASK)
        assert refused.value.code == "invalid_api_key"
    async with client(queen, key) as known:
        for _ in range(2):
            await known.chat.completions.create(model="m", messages=ASK)
        with pytest.raises(openai.RateLimitError) as limited:
            await known.chat.completions.create(model="m", messages=ASK)
        assert int(limited.value.response.headers["retry-after"]) >= 1
    listed = []
    async with asyncio.timeout(10):
        while not listed or listed[0]["usage"]["requests"] < 2:
            text = (await asyncio.to_thread(skep, "key", "--url", queen.admin, "list", "--json")).stdout
            listed = json.loads(text)
    assert listed[0]["usage"]["tokens_in"] == 10
    assert listed[0]["usage"]["tokens_out"] == 8
    assert key not in text
    assert (
        key.encode()
        not in (await asyncio.to_thread(skep, "store", "export", "--store", _store(queen))).stdout.encode()
    )
    await asyncio.to_thread(skep, "key", "--url", queen.admin, "revoke", listed[0]["key_id"])
    async with client(queen, "anything") as anybody, asyncio.timeout(10):
        while True:
            try:
                await anybody.chat.completions.create(model="m", messages=ASK)
                break
            except openai.AuthenticationError:
                continue


def _store(queen) -> str:
    return f"sqlite:{queen.log.parent}/home/state/queen.db"


async def test_a_key_for_one_model_may_not_use_another_and_sees_only_its_own(start_queen, start_worker):
    queen = start_queen()
    worker, _ = start_worker()
    await register(queen.admin, worker)
    key = await make_key(queen.admin, {"name": "x", "models": ["other"]})
    await until_asked_for_a_key(queen)
    async with client(queen, key) as known:
        with pytest.raises(openai.PermissionDeniedError):
            await known.chat.completions.create(model="m", messages=ASK)
        assert [model.id async for model in known.models.list()] == []


async def test_concurrency_is_bounded_and_freed_when_a_client_leaves(start_queen, start_worker):
    queen = start_queen()
    worker, _ = start_worker()
    await register(queen.admin, worker)
    key = await make_key(queen.admin, {"name": "x", "limits": {"concurrency": 1}})
    await until_asked_for_a_key(queen)
    async with client(queen, key) as known:
        endless = [{"role": "user", "content": "for ever"}]
        stream = await known.chat.completions.create(model="m", messages=endless, stream=True)
        await anext(aiter(stream))
        with pytest.raises(openai.RateLimitError, match="under way"):
            await known.chat.completions.create(model="m", messages=ASK)
        await stream.close()
        async with asyncio.timeout(10):
            while True:
                try:
                    await known.chat.completions.create(model="m", messages=ASK)
                    break
                except openai.RateLimitError:
                    continue


def test_looking_and_moving_from_the_command_line(start_queen, start_worker, tmp_path):
    queen = start_queen()
    asyncio.run(register(queen.admin, start_worker()[0]))
    assert "n1" in skep("nodes", "--url", queen.admin).stdout
    skep("nodes", "--url", queen.admin, "cordon", "n1")
    assert json.loads(skep("nodes", "--url", queen.admin, "--json").stdout)[0]["state"] == "cordoned"
    shown = skep("top", "--url", queen.admin, "--once").stdout
    assert "requests/s" in shown
    assert "cordoned" in shown
    assert json.loads(skep("top", "--url", queen.admin, "--json").stdout)["models"][0]["name"] == "m"
    skep("key", "--url", queen.admin, "create", "moved", "--model", "m", "--expires", "30d")
    export = tmp_path / "fleet.jsonl"
    export.write_text(skep("store", "export", "--store", _store(queen)).stdout)
    target = f"sqlite:{tmp_path}/copy.db"
    skep("store", "import", str(export), "--store", target)
    assert "--merge" in skep("store", "import", str(export), "--store", target, code=1).stderr
    skep("store", "import", str(export), "--store", target, "--merge")
    other = start_queen("--store", target)
    assert json.loads(skep("key", "--url", other.admin, "list", "--json").stdout)[0]["name"] == "moved"


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (("nodes", "--url", "http://127.0.0.1:1"), 1, "no queen answers"),
        (("key", "--url", "http://127.0.0.1:1", "create", "x", "--expires", "soon"), 2, "90m, 12h or 30d"),
        (("store", "export", "--store", "redis:x"), 2, "names no store"),
        (("store", "import", "/nowhere", "--store", "sqlite:/tmp/never.db"), 2, "cannot read"),
        (("queen", "--bind", "nonsense"), 2, "HOST:PORT"),
        (("queen", "--tls-cert", "a.pem"), 2, "belong together"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(argv, code, says):
    told = skep(*argv, code=code).stderr
    assert says in told
    assert told.strip().count("\n") == 0
