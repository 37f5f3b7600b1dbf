"""`POST /v1/completions`."""

from collections.abc import Sequence
from typing import Any

from skep.runtime.job import Job
from skep.runtime.request import Event, Finished, GenerationRequest, Token
from skep.wire.openai import CompletionRequest
from skep.worker import answers
from skep.worker.answers import Tally
from skep.worker.chunks import (
    TextChunks,
    finish_reason,
    text_logprobs,
    text_of_piece,
    tokens_of,
)
from skep.worker.request import Request
from skep.worker.sampling import constraint_of, params_of
from skep.worker.service import Service

KIND = "text_completion"
MAX_TOKENS_DEFAULT = 16
"""OpenAI's default for this older endpoint."""


async def completions(service: Service, request: Request) -> None:
    """Answer text completions, streaming or whole; choices are numbered prompt by prompt."""
    body = await request.parse(CompletionRequest, service.metrics.unknown_fields)
    service.check_model(body.model)
    count = body.n or 1
    answer_id = answers.answer_id(request, "cmpl")
    wanted = await _generations(service, body, answer_id, client=request.header(b"x-skep-client"))
    shown = [await _echo(service, one) if body.echo else "" for one in body.prompts or ()]
    echoes = [one for one in shown for _ in range(count)]
    jobs = await answers.submit_all(service, wanted)

    async def work() -> None:
        tally = Tally()
        if body.stream:
            envelope = answers.envelope(service, body, answer_id, KIND)
            chunks = [TextChunks(envelope, index) for index in range(len(jobs))]
            writers = [
                TextWriter(body, job, chunks[index], tally, prompt=index // count)
                for index, (job, _) in enumerate(jobs)
            ]
            opening = b"".join(one.text(echo) for one, echo in zip(chunks, echoes, strict=True) if echo)
            await answers.stream(request, jobs, writers, opening=opening, envelope=envelope, tally=tally)
        else:
            found = await answers.collect_all(jobs)
            choices = [
                _choice(body, index, events, echoes[index], tally, prompt=index // count)
                for index, events in enumerate(found)
            ]
            await request.answer(answers.whole(service, answer_id, KIND, choices, tally))

    await answers.answer(service, request, jobs, "/v1/completions", work)


async def _generations(
    service: Service, body: CompletionRequest, answer_id: str, *, client: str
) -> list[GenerationRequest]:
    prompts = [
        tuple(await service.tokenize(one, parse_special=True)) if isinstance(one, str) else tuple(one)
        for one in body.prompts or ()
    ]
    count = body.n or 1
    ids = answers.job_ids(answer_id, len(prompts) * count)
    return [
        GenerationRequest(
            job_id=job_id,
            prompt=prompts[index // count],
            max_tokens=body.max_tokens or MAX_TOKENS_DEFAULT,
            sampling=params_of(body, choice=index % count),
            stop=body.stops,
            logprobs=body.logprobs,
            constraint=constraint_of(body),
            deadline_s=service.options.timeout_s,
            ignore_end=bool(body.ignore_eos),
            client=client,
        )
        for index, job_id in enumerate(ids)
    ]


class TextWriter:
    """One choice's events as chunks. `prompt` is the number of its prompt."""

    def __init__(
        self, body: CompletionRequest, job: Job, chunks: TextChunks, tally: Tally, *, prompt: int
    ) -> None:
        self._job, self._chunks, self._tally, self._prompt = job, chunks, tally, prompt
        self._logprobs = body.logprobs
        self._offset = 0

    def write(self, events: Sequence[Event]) -> bytes:
        """Return the bytes of some events."""
        parts: list[bytes] = []
        text = self._chunks.text
        for event in events:
            if type(event) is Token:
                if self._logprobs is not None:
                    parts.append(self._with_logprobs(event))
                elif event.text:
                    parts.append(text(event.text))
            elif isinstance(event, Finished):
                self._tally.add(self._prompt, event)
                parts.append(self._chunks.finish(finish_reason(event), self._job.seed))
        return b"".join(parts)

    def _with_logprobs(self, event: Token) -> bytes:
        found = text_logprobs([event], text_of_piece, self._offset, top=self._logprobs or 0)
        self._offset += sum(len(text) for text in found["tokens"])
        return self._chunks.text_with_logprobs(event.text, found)


def _choice(
    body: CompletionRequest, index: int, events: list[Event], echo: str, tally: Tally, *, prompt: int
) -> dict[str, Any]:
    end = events[-1]
    assert isinstance(end, Finished)
    tally.add(prompt, end)
    tokens = tokens_of(events)
    logprobs = None
    if body.logprobs is not None:
        logprobs = text_logprobs(tokens, text_of_piece, 0, top=body.logprobs)
    text = echo + "".join(token.text for token in tokens)
    return {
        "index": index,
        "text": text,
        "logprobs": logprobs,
        "finish_reason": finish_reason(end),
        "seed": answers.seed_of(events),
    }


async def _echo(service: Service, prompt: str | list[int]) -> str:
    return prompt if isinstance(prompt, str) else await service.detokenize(prompt)
