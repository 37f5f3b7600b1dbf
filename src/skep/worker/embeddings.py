"""`POST /v1/embeddings`."""

import base64
from typing import Any

import msgspec

from skep.errors import SkepError
from skep.errors.worker import EmbeddingsUnsupported
from skep.runtime import request as runtime
from skep.runtime.job import Job
from skep.wire.openai import EmbeddingRequest, EmbeddingResponse
from skep.wire.openai.embeddings import Embedding, EmbeddingUsage
from skep.worker.chunks import encode_json
from skep.worker.request import Request
from skep.worker.service import Service, new_id


async def embeddings(service: Service, request: Request) -> None:
    """Answer one unit vector for each input; inputs queue one after another, so they need no more than one place."""
    body = await request.parse(EmbeddingRequest, service.metrics.unknown_fields)
    service.check_model(body.model)
    size = service.model.info.embedding_size
    if body.dimensions is not None and body.dimensions != size:
        raise EmbeddingsUnsupported(
            f"this model's vectors have {size} dimensions and are not shortened", param="dimensions"
        )
    current: list[Job] = []
    base = new_id("embd")
    found: list[runtime.Embedded] = []
    async with request.watched(lambda: [job.cancel() for job in current]):
        for index, given in enumerate(body.inputs or []):
            tokens = await service.tokenize(given) if isinstance(given, str) else given
            job = service.embed(
                runtime.EmbeddingRequest(
                    job_id=f"{base}-{index}",
                    prompt=tuple(tokens),
                    deadline_s=service.options.timeout_s,
                    client=request.header(b"x-skep-client"),
                )
            )
            current[:] = [job]
            with service.in_hand(current, "/v1/embeddings"):
                found.append(await _vector(job))
    prompt_tokens = sum(one.prompt_tokens for one in found)
    response = EmbeddingResponse(
        model=service.served_name,
        data=[
            Embedding(index=index, embedding=_encoded(one, body.encoding_format))
            for index, one in enumerate(found)
        ],
        usage=EmbeddingUsage(prompt_tokens=prompt_tokens, total_tokens=prompt_tokens),
    )
    await request.answer(encode_json(msgspec.to_builtins(response)))


async def _vector(job: Job) -> runtime.Embedded:
    """Return a job's vector. Raises: the job's error."""
    async for event in job:
        if isinstance(event, runtime.Embedded):
            return event
        if isinstance(event, runtime.Failed):
            raise event.error
    raise SkepError("the embedding ended without a vector")


def _encoded(one: runtime.Embedded, encoding: str | None) -> Any:
    if encoding == "base64":
        return base64.b64encode(one.vector.astype("<f4").tobytes()).decode()
    return one.vector.tolist()
