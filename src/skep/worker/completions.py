"""`POST /v1/completions`."""

from collections.abc import Sequence
from typing import Any

from skep.runtime.request import Event, Finished, GenerationRequest, Token
from skep.wire.openai import CompletionRequest
from skep.worker import answers
from skep.worker.answers import Tally
from skep.worker.chunks import (
    Envelope,
    TextChunks,
    encode_json,
    finish_reason,
    text_logprobs,
    text_of_piece,
    tokens_of,
)
from skep.worker.request import Request
from skep.worker.sampling import grammar_of, params_of
from skep.worker.service import Service, new_id

KIND = "text_completion"
MAX_TOKENS_DEFAULT = 16
"""OpenAI's default for this older endpoint."""


async def completions(service: Service, request: Request) -> None:
    """Answer text completions, streaming or whole; choices are numbered prompt by prompt."""
    body = await request.parse(CompletionRequest, service.metrics.unknown_fields)
    service.check_model(body.model)
    count = body.n or 1
    answer_id = request.header(b"x-skep-job-id") or new_id("cmpl")
    given = body.prompts or []
    prompts = [
        tuple(await service.tokenize(one, parse_special=True)) if isinstance(one, str) else tuple(one)
        for one in given
    ]
    ids = iter(answers.job_ids(answer_id, len(prompts) * count))
    requests = [
        GenerationRequest(
            job_id=next(ids),
            prompt=prompt,
            max_tokens=body.max_tokens or MAX_TOKENS_DEFAULT,
            sampling=params_of(body, choice=choice),
            stop=body.stops,
            logprobs=body.logprobs,
            constraint=grammar_of(body),
            deadline_s=service.options.timeout_s,
            ignore_end=bool(body.ignore_eos),
            client=request.header(b"x-skep-client"),
        )
        for prompt in prompts
        for choice in range(count)
    ]
    echoes = [_echo(service, one) if body.echo else "" for one in given for _ in range(count)]
    jobs = await answers.submit_all(service, requests)

    async def work() -> None:
        tally = Tally()
        if not body.stream:
            found = await answers.collect_all(jobs)
            whole = [
                _choice(body, index, events, echoes[index], tally, prompt=index // count)
                for index, events in enumerate(found)
            ]
            fields = {"id": answer_id, "object": KIND, "created": service.created_now()}
            fields |= {"model": service.served_name, "choices": whole, "usage": tally.usage()}
            await request.answer(encode_json({**fields, "system_fingerprint": None}))
            return
        envelope = Envelope(
            id=answer_id,
            created=service.created_now(),
            model=service.served_name,
            kind=KIND,
            include_usage=answers.wants_usage(body),
        )
        chunks = [TextChunks(envelope, index) for index in range(len(jobs))]
        writers = [TextWriter(body, one, tally, prompt=index // count) for index, one in enumerate(chunks)]
        opening = b"".join(one.text(echo) for one, echo in zip(chunks, echoes, strict=True) if echo)
        await answers.stream(request, jobs, writers, opening=opening, envelope=envelope, tally=tally)

    await answers.answer(service, request, jobs, "/v1/completions", work)


class TextWriter:
    """One choice's events as chunks. `prompt` is the number of its prompt."""

    def __init__(self, body: CompletionRequest, chunks: TextChunks, tally: Tally, *, prompt: int) -> None:
        self._chunks, self._tally, self._prompt = chunks, tally, prompt
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
                parts.append(self._chunks.finish(finish_reason(event)))
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
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason(end)}


def _echo(service: Service, prompt: str | list[int]) -> str:
    return prompt if isinstance(prompt, str) else service.detokenize(prompt)
