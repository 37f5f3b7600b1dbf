"""What a worker tells of itself: health, metrics, jobs; and who may ask."""

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from skep.runtime.models import TINY
from skep.testkit.harness import collect_sse_events, make_request

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOTH = ["fake:demo", pytest.param(str(TINY), id="llama", marks=pytest.mark.llama)]
HEALTH = {
    "status", "instance", "worker_id", "model", "resident", "quantization", "device_mask", "vram_used_bytes",
    "ram_used_bytes", "context", "slots_total", "slots_free", "tokenizer", "vocab_size", "uptime_s",
}  # fmt: skip
VLLM = {
    "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:prefix_cache_queries",
    "vllm:prefix_cache_hits", "vllm:prompt_tokens", "vllm:generation_tokens", "vllm:request_success",
    "vllm:time_to_first_token_seconds", "vllm:time_per_output_token_seconds",
}  # fmt: skip


async def test_health_tells_every_field(worker):
    health = await worker.health()
    assert health.keys() >= HEALTH
    assert (health["model"], health["context"], health["slots_total"]) == ("m", 512, 4)
    assert health["resident"] is True
    assert health["vocab_size"] > 0
    assert health["ram_used_bytes"] > 2**20


@pytest.mark.parametrize("model", BOTH)
async def test_metrics_have_vllm_s_names_and_count(start_worker, model):
    worker = await start_worker(model, extra=("--threads", "1"))
    events = await collect_sse_events(await worker.execute(make_request("count these", max_tokens=12)))
    families = {one.name: one for one in text_string_to_metric_families(await worker.metrics())}
    assert families.keys() >= VLLM
    counted = {
        sample.name: sample.value
        for one in families.values()
        for sample in one.samples
        if "le" not in sample.labels and "finished_reason" not in sample.labels
    }
    made = counted["vllm:generation_tokens_total"] - 1  # The start's proof took one.
    assert made - events[-1].tokens_out in {0, 1}  # The token that ends a text is counted, but is no text.
    assert counted["vllm:time_to_first_token_seconds_count"] == 1
    assert counted["vllm:num_requests_running"] == 0
    assert sum(sample.value for sample in families["vllm:request_success"].samples) == 1


async def test_jobs_in_hand_are_listed(start_worker):
    worker = await start_worker("fake:slow?token_delay_ms=30", slots=1)
    first = make_request(max_tokens=500)
    async with await worker.execute(first) as stream:
        await anext(stream)
        waiting = asyncio.create_task(worker.execute(make_request()))
        await worker.until_health(lambda found: found["queue_depth"] == 1)
        by_state = {job["state"]: job for job in await worker.jobs()}
        assert by_state["decoding"]["job_id"] == first.job_id
        assert by_state["decoding"]["route"] == "/execute"
        assert by_state["queued"]["tokens_out"] == 0
    await collect_sse_events(await waiting)
    assert await worker.jobs() == []


@pytest.mark.parametrize("path", ["/metrics", "/jobs", "/v1/models"])
async def test_everything_but_health_asks_for_the_token(start_worker, path):
    worker = await start_worker(token="right")
    for token, status in (("wrong", 401), ("right", 200)):
        async with worker.client.get(path, headers={"authorization": f"Bearer {token}"}) as response:
            assert response.status == status
    async with worker.client.get("/health", headers={"authorization": ""}) as response:
        assert response.status == 200


async def test_unknown_fields_are_counted(start_worker):
    worker = await start_worker()
    await collect_sse_events(
        await worker.execute({"job_id": "a", "prompt": "b", "max_tokens": 1, "new": 1, "newer": 2})
    )
    assert "skep_unknown_fields_total" in (text := await worker.metrics())
    assert 'skep_unknown_fields_total{model_name="demo"} 2.0' in text
