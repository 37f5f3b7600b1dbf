"""One engine being served: tokenising, submitting, the jobs that are in hand, draining."""

import asyncio
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
import psutil

from skep.errors import InvalidInput, SkepError
from skep.errors.runtime import Closed, QueueFull
from skep.errors.worker import ModelUnknown, NotReady
from skep.runtime.backend import BackendModel
from skep.runtime.engine import Engine
from skep.runtime.job import Job
from skep.runtime.request import EmbeddingRequest, GenerationRequest
from skep.runtime.templates import ChatTemplate, encode_prompt
from skep.wire.events import DrainOutcome
from skep.worker.metrics import JobMeter, WorkerMetrics
from skep.worker.options import WorkerOptions
from skep.worker.reasoning import is_begun
from skep.worker.weights import WeightsWatch

LONG_TEXT_CHARS = 16_384
"""Longer texts are tokenised in a thread, so that the event loop goes on answering."""

MANY_MESSAGES, MANY_TOKENS = 32, 4096
"""As above: from how many on a conversation is rendered, and tokens are turned into text, in a thread."""

RETRY_AFTER_S_MAX = 30
MEMORY_FRESH_S = 1.0


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """One job as `GET /jobs` shows it."""

    job_id: str
    state: str
    route: str
    prompt_tokens: int
    tokens_out: int
    age_ms: int


class Service:
    """What the endpoints work with. Before `open` it answers NotReady; `loading` is the progress 0..1 until then."""

    def __init__(self, options: WorkerOptions, served_name: str) -> None:
        self.options = options
        self.served_name = served_name
        self.metrics = WorkerMetrics(served_name)
        self.created = int(time.time())
        self.started_at = time.monotonic()
        self.loading = 0.0
        self.is_ready = False
        self.is_draining = False
        self.thinks = self.thinks_at_once = False
        self._template: ChatTemplate | None = None
        self._process = psutil.Process()
        self._memory, self._memory_at = (0, 0), 0.0
        self._engine: Engine | None = None
        self._routes: dict[str, str] = {}
        self.weights: WeightsWatch | None = None

    def open(self, engine: Engine, template: ChatTemplate, *, thinks: bool) -> None:
        """Serve this engine from now on; `is_ready` is set when a token has come out of it."""
        self._engine, self._template = engine, template
        self.thinks = thinks
        if thinks:
            with suppress(InvalidInput):  # A template may refuse this very conversation.
                self.thinks_at_once = is_begun(template.render([{"role": "user", "content": "Hi"}]))

    def memory(self) -> tuple[int, int]:
        """Return (host, device) bytes of this process, at most MEMORY_FRESH_S old."""
        now = time.monotonic()
        if now - self._memory_at >= MEMORY_FRESH_S or not self._memory_at:
            device = self._memory[1]
            if self._engine is not None:
                with suppress(Closed):  # It is being closed: the last figure stands.
                    device = self._engine.memory().device_bytes
            self._memory, self._memory_at = (self._process.memory_info().rss, device), now
        return self._memory

    @property
    def engine(self) -> Engine:
        """Return the engine. Raises: NotReady."""
        if self._engine is None:
            percent = round(self.loading * 100)
            raise NotReady(f"the model is loading ({percent} %); ask again", progress=self.loading)
        return self._engine

    @property
    def model(self) -> BackendModel:
        """Return the loaded model. Raises: NotReady."""
        return self.engine.model

    @property
    def is_resident(self) -> bool:
        """True when the model is in memory."""
        return self._engine is not None

    def fault(self) -> SkepError | None:
        """Return why nothing more can be served, None while all is well. Weights that changed end every job."""
        if self.engine.fault is None and self.weights is not None:
            changed = self.weights.check(time.monotonic())
            if changed is not None:
                self.engine.give_up(changed)
                return changed
        return self.engine.fault

    def check_model(self, name: str) -> None:
        """Refuse a request for another model. Raises: ModelUnknown."""
        if name not in (self.served_name, self.options.model, *self.options.aliases):
            raise ModelUnknown(
                f"this worker serves {self.served_name!r}, and no other model: see GET /v1/models",
                param="model",
            )

    # Text and tokens -----------------------------------------------------------------------------------------------

    async def tokenize(
        self, text: str, *, add_special: bool = True, parse_special: bool = False
    ) -> list[int]:
        """Return token ids."""
        model = self.model
        if len(text) < LONG_TEXT_CHARS:
            return model.tokenize(text, add_special=add_special, parse_special=parse_special)
        return await asyncio.to_thread(
            model.tokenize, text, add_special=add_special, parse_special=parse_special
        )

    async def chat_prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Return the tokens of a conversation, by the model's chat template. Raises: InvalidTemplate."""
        model, template = self.model, self._template
        assert template is not None

        def render() -> list[int]:
            text = template.render(
                messages, tools=tools, add_generation_prompt=add_generation_prompt, variables=variables
            )
            return encode_prompt(model, text)

        chars = sum(len(message.get("content") or "") for message in messages)
        if chars < LONG_TEXT_CHARS and len(messages) <= MANY_MESSAGES:
            return render()
        return await asyncio.to_thread(render)

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of some tokens. Raises: InvalidToken."""
        model = self.model

        def pieces() -> bytes:
            return b"".join(model.piece(token, special=True) for token in tokens)

        found = pieces() if len(tokens) < MANY_TOKENS else await asyncio.to_thread(pieces)
        return found.decode(errors="replace")

    # Jobs ----------------------------------------------------------------------------------------------------------

    def meter(self) -> JobMeter:
        """Return a meter for a job that arrives now."""
        return JobMeter(self.metrics)

    async def submit(self, request: GenerationRequest) -> Job:
        """Queue a generation. Raises: as Engine.submit; QueueFull says when to come back."""
        engine = self.engine
        try:
            if request.constraint is None:
                return engine.submit(request)
            # Compiling a constraint takes milliseconds, for a first one up to a second.
            return await asyncio.to_thread(engine.submit, request)
        except QueueFull as error:
            raise self._queue_full(error) from error

    def embed(self, request: EmbeddingRequest) -> Job:
        """Queue an embedding. Raises: as Engine.embed."""
        try:
            return self.engine.embed(request)
        except QueueFull as error:
            raise self._queue_full(error) from error

    @contextmanager
    def in_hand(self, jobs: Sequence[Job], route: str) -> Iterator[None]:
        """Name the route of jobs while they are being answered; whatever happens they are cancelled on the way out."""
        self._routes.update((job.id, route) for job in jobs)
        try:
            yield
        finally:
            for job in jobs:
                job.cancel()
                self._routes.pop(job.id, None)

    def jobs(self) -> list[JobView]:
        """Return every job that is queued or running."""
        if self._engine is None:
            return []
        now = time.monotonic()
        return [
            JobView(
                job_id=job.id,
                state=str(job.state),
                route=self._routes.get(job.id, ""),
                prompt_tokens=len(job.request.prompt),
                tokens_out=job.tokens_out,
                age_ms=round((now - job.submitted_at) * 1000),
            )
            for job in self._engine.jobs()
        ]

    async def drain(self, deadline_s: float) -> DrainOutcome:
        """Admit nothing more; finish or cancel what is in hand by the deadline."""
        self.is_draining = True
        begun = time.monotonic()
        in_hand, cancelled = len(self.jobs()), 0
        if self._engine is not None:
            cancelled = await self._engine.drain(deadline_s)
        return DrainOutcome(
            drained=True,
            duration_ms=round((time.monotonic() - begun) * 1000),
            jobs_finished=max(0, in_hand - cancelled),
            jobs_cancelled=cancelled,
        )

    def _queue_full(self, error: QueueFull) -> QueueFull:
        """Say when a slot is likely: about as long as the jobs ahead have taken so far, bounded."""
        now = time.monotonic()
        ages = sorted(now - job.submitted_at for job in self.engine.jobs())
        middle = ages[len(ages) // 2] if ages else 0.0
        wait_s = min(RETRY_AFTER_S_MAX, max(1, round(middle)))
        return QueueFull(
            f"{error}; come back in {wait_s} s", retry_after_s=wait_s, queue_max=self.options.queue_max
        )


def new_id(prefix: str) -> str:
    """Return an id that nobody else has."""
    return f"{prefix}-{uuid.uuid4().hex}"


def utc_now() -> str:
    """Return the time as RFC 3339."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
