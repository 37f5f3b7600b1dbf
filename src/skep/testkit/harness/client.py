"""The verbs of a worker over HTTP, with every failure typed."""

import asyncio
from collections.abc import Callable, Container, Mapping
from typing import Any

import aiohttp
import msgspec

from skep.errors.harness import HarnessError, WorkerDied, WorkerHttpFailed, WorkerInvalidResponse
from skep.testkit.harness.memory import MemoryLedger
from skep.testkit.harness.sse import SseStream
from skep.wire.errors import decode_error
from skep.wire.events import ExecuteRequest

REQUEST_S = 30.0
HEALTH_STATUSES = {200, 503}  # 503 while it takes no work; the body says why all the same.
_POLL_S = 0.01


class WorkerClient:
    """Talks to one worker. `death_soon` tells whether a connection broke because the process ended."""

    def __init__(self, client: aiohttp.ClientSession, memory: MemoryLedger) -> None:
        self.client = client
        self.memory = memory

    async def death_soon(self) -> WorkerDied | None:
        """Return the error that tells how the process ended; None while it runs, or when nobody knows."""
        return None

    async def execute(self, request: ExecuteRequest | Mapping[str, Any]) -> SseStream:
        """Begin a job; collect its stream, or close it. Raises: WorkerHttpFailed (refused), WorkerDied."""
        return await self.stream("/execute", request)

    async def stream(self, path: str, body: Any, *, headers: Mapping[str, str] | None = None) -> SseStream:
        """Begin any streaming POST. Raises: WorkerHttpFailed (also for a response that is no event stream), WorkerDied."""
        response = await self._send("POST", path, body, headers)
        if response.status != 200 or "text/event-stream" not in response.headers.get("content-type", ""):
            async with response:
                raise self._refusal(path, response.status, await response.read())
        return SseStream(response, explain=self.death_soon)

    async def health(self) -> dict[str, Any]:
        """Return GET /health, also of a worker that takes no work. Raises: WorkerHttpFailed, WorkerDied, WorkerInvalidResponse."""
        found = await self._json("GET", "/health", None, HEALTH_STATUSES)
        self.memory.look(found.get("vram_used_bytes"))
        return found

    async def cancel(self, job_id: str) -> None:
        """Cancel a job, whatever became of it. Raises: WorkerHttpFailed, WorkerDied."""
        await self.post("/cancel", {"job_id": job_id}, status=202)

    async def drain(self, *, deadline_ms: int = 5000) -> dict[str, Any]:
        """Drain the worker; return the outcome."""
        return await self.post("/drain", {"deadline_ms": deadline_ms})

    async def jobs(self) -> list[dict[str, Any]]:
        """Return the jobs in hand."""
        found: list[dict[str, Any]] = (await self.get("/jobs"))["jobs"]
        return found

    async def metrics(self) -> str:
        """Return the metrics' text."""
        response = await self._send("GET", "/metrics", None, None)
        async with response:
            return await response.text()

    async def get(self, path: str) -> dict[str, Any]:
        """Return a JSON object. Raises: WorkerHttpFailed, WorkerDied, WorkerInvalidResponse."""
        return await self._json("GET", path, None, {200})

    async def post(self, path: str, body: Any, *, status: int = 200) -> dict[str, Any]:
        """Post JSON; return a JSON object. Raises: WorkerHttpFailed (another status), WorkerDied, WorkerInvalidResponse."""
        return await self._json("POST", path, body, {status})

    async def until_health(
        self, condition: Callable[[dict[str, Any]], bool], *, within_s: float = 5.0
    ) -> dict[str, Any]:
        """Wait until health fulfils a condition; return it. Raises: TimeoutError with the last one seen."""
        found: dict[str, Any] = {}
        try:
            async with asyncio.timeout(within_s):
                while True:
                    found = await self.health()
                    if condition(found):
                        return found
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise TimeoutError(f"health did not come to it within {within_s:g} s: {found}") from None

    async def _send(
        self, method: str, path: str, body: Any, headers: Mapping[str, str] | None
    ) -> aiohttp.ClientResponse:
        given = {"content-type": "application/json", **(headers or {})}
        data = None if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
        try:
            return await self.client.request(method, path, data=data, headers=given)
        except (aiohttp.ClientError, ConnectionError) as error:
            raise await self._no_answer(path, error) from error

    async def _json(self, method: str, path: str, body: Any, statuses: Container[int]) -> dict[str, Any]:
        async with asyncio.timeout(REQUEST_S):
            response = await self._send(method, path, body, None)
            async with response:
                raw = await response.read()
        if response.status not in statuses:
            raise self._refusal(path, response.status, raw)
        try:
            return msgspec.json.decode(raw, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise WorkerInvalidResponse(f"{path} answered no JSON object: {error}", path=path) from error

    def _refusal(self, path: str, status: int, raw: bytes) -> WorkerHttpFailed:
        error = decode_error(raw)
        text = error.message if error else f"{len(raw)} bytes without an error object"
        return WorkerHttpFailed(f"{path} answered {status}: {text}", status=status, error=error, path=path)

    async def _no_answer(self, path: str, error: BaseException) -> HarnessError:
        return await self.death_soon() or WorkerHttpFailed(
            f"{path} was not answered: {error!r}", status=0, error=None, path=path
        )
