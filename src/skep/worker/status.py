"""`GET /health`, `/metrics`, `/jobs`, `/v1/models`, and `POST /drain`."""

from skep.telemetry.metrics import CONTENT_TYPE
from skep.wire.events import DrainRequest
from skep.wire.openai import ModelCard, ModelList
from skep.worker.chunks import encode_json
from skep.worker.health import Health
from skep.worker.request import Request
from skep.worker.service import Service


class Status:
    """The endpoints that tell of the worker, and the one that ends its work."""

    def __init__(self, health: Health) -> None:
        self._health = health

    async def health(self, _service: Service, request: Request) -> None:
        """Answer 200 where work is taken, 503 where it is not; `status` says why, `instance` whose process it is."""
        await request.answer(self._health.body(), status=200 if self._health.status == "ready" else 503)

    async def metrics(self, service: Service, request: Request) -> None:
        """Answer in Prometheus' text format."""
        await request.answer(service.metrics.render(), content_type=CONTENT_TYPE)

    async def jobs(self, service: Service, request: Request) -> None:
        """List what is queued and running."""
        await request.answer(encode_json({"jobs": service.jobs(), "draining": service.is_draining}))

    async def models(self, service: Service, request: Request) -> None:
        """List the one model."""
        card = ModelCard(
            id=service.served_name, created=service.created, max_model_len=service.options.context
        )
        await request.answer(encode_json(ModelList(data=[card])))

    async def drain(self, service: Service, request: Request) -> None:
        """Stop admitting; answer when everything has ended, by itself or by the deadline."""
        body = await request.parse(DrainRequest, service.metrics.unknown_fields)
        outcome = await service.drain(body.deadline_ms / 1000)
        await request.answer(encode_json(outcome))
