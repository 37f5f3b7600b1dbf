"""A model that only embeds: ready by a vector, and honest about what it cannot do."""

import pytest

from skep.errors.harness import WorkerHttpFailed
from skep.runtime.models import BERT

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.llama]


async def test_an_encoder_is_ready_embeds_and_generates_nothing(start_worker):
    worker = await start_worker(BERT, extra=("--served-name", "m", "--threads", "1"))
    health = await worker.health()
    assert (health["status"], health["tokenizer"]) == ("ready", "bert")
    made = await worker.post("/v1/embeddings", {"model": "m", "input": ["a bee", "a hive"]})
    assert [one["index"] for one in made["data"]] == [0, 1]
    assert sum(value * value for value in made["data"][0]["embedding"]) == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(WorkerHttpFailed) as caught:
        await worker.post("/v1/completions", {"model": "m", "prompt": "x"})
    assert caught.value.status == 400
