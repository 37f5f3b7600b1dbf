"""Requests that no client would send: each is answered, with a type, and the worker goes on."""

import asyncio
import json
import os
import random

import aiohttp
import pytest

from skep.runtime.models import TINY
from skep.testkit.harness import (
    assert_successful_completion,
    collect_sse_events,
    make_request,
)
from skep.wire.events import ExecuteRequest
from skep.wire.openai import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    TokenizeRequest,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEEDS = {
    "/execute": {"job_id": "j", "prompt": "hello", "max_tokens": 2, "temperature": 0},
    "/cancel": {"job_id": "j"},
    "/v1/chat/completions": {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2},
    "/v1/completions": {"model": "m", "prompt": "hi", "max_tokens": 2},
    "/v1/embeddings": {"model": "m", "input": "hi"},
    "/tokenize": {"prompt": "hi"},
    "/detokenize": {"tokens": [97]},
}
LANES = 8
KINDS = (ExecuteRequest, ChatRequest, CompletionRequest, EmbeddingRequest, TokenizeRequest, DetokenizeRequest)
FIELDS = sorted({name for kind in KINDS for name in kind.__struct_fields__})
VALUES = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, "", "a", "\0", "\ud83d\ude00", "x" * 5000, [], {}, [[]],
    [None], [1, "a"], [[1], [2]], {"type": "text"}, {"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
    [{"role": "user", "content": "x"}], [{"role": "tool"}], [{"role": "user", "content": [{"type": "image_url"}]}], {"1": 5}, {"-1": 5}, {"x": "y"},
    {"include_usage": True}, [97, 98], [10**9], [-1], ["a", "b"], "root ::= [", {"$ref": "#"},
]  # fmt: skip


def mutated(rng, path):
    body = json.loads(json.dumps(SEEDS[path]))
    for _ in range(rng.randint(1, 4)):
        name = rng.choice(FIELDS) if rng.random() < 0.7 else rng.choice(sorted(body) or ["model"])
        if rng.random() < 0.1:
            body.pop(name, None)
        elif name == "max_tokens" and rng.random() < 0.5:
            body[name] = rng.randint(-2, 5)
        else:
            body[name] = rng.choice(VALUES)
    if body.get("max_tokens") not in (-1, 0, "a"):
        body["max_tokens"] = 2
    body.pop("max_completion_tokens", None)
    data = json.dumps(body).encode("utf-8", "surrogatepass")
    if rng.random() < 0.15:
        cut = rng.randrange(len(data))
        data = data[:cut] + rng.randbytes(rng.randint(0, 3)) + data[cut + rng.randint(0, 3) :]
    return data


async def one(client, chooser):
    """Send one request; return its status."""
    path = chooser.choice(sorted(SEEDS))
    data = mutated(chooser, path)
    async with client.post(path, data=data, headers={"content-type": "application/json"}) as response:
        body = await response.read()
    # No 5xx of its own; a timeout is one of a client that asked for much.
    assert response.status in {200, 202, 400, 404, 409, 499, 504}, (path, data, body)
    if response.status >= 400:
        error = json.loads(body)["error"]
        assert error["code"], (path, data)
        assert error["message"], (path, data)
    return response.status


async def fuzz(worker, rng, count):
    """Send many, some at a time, so that they meet each other too."""
    seen = set()

    async def lane(chooser):
        for _ in range(count // LANES):
            seen.add(await one(client, chooser))

    async with (
        aiohttp.ClientSession(worker.base_url, headers=worker.client.headers) as client,
        asyncio.TaskGroup() as group,
    ):
        for seed in [rng.randrange(2**32) for _ in range(LANES)]:
            group.create_task(lane(random.Random(seed)))
    health = await worker.until_health(lambda found: found["slots_free"] == found["slots_total"])
    assert health["status"] == "ready"
    assert_successful_completion(await collect_sse_events(await worker.execute(make_request(max_tokens=2))))
    return seen


@pytest.fixture
def rng(record_property):
    seed = int(os.environ.get("SKEP_TEST_SEED", "0")) or random.randrange(2**32)
    record_property("seed", seed)
    return random.Random(seed)


async def test_mutated_requests_are_typed_errors_or_answers(worker, rng):
    seen = await fuzz(worker, rng, 300)
    assert {200, 400} <= seen


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("model", ["fake:m", pytest.param(str(TINY), id="llama", marks=pytest.mark.llama)])
async def test_a_hundred_thousand_mutated_requests(start_worker, rng, model):
    extra = ("--served-name", "m", "--threads", "1")
    worker = await start_worker(model, slots=4, context=512, extra=extra)
    assert {200, 202, 400, 404} <= await fuzz(worker, rng, 100_000)
