"""`POST /v1/chat/completions`."""

from collections.abc import Sequence
from typing import Any

import msgspec

from skep.runtime.job import Job
from skep.runtime.request import Constraint, Event, Finished, GenerationRequest, Token
from skep.wire.openai import ChatMessage, ChatRequest, ToolCall
from skep.wire.openai.chat import NamedToolChoice
from skep.worker import answers
from skep.worker.answers import Tally
from skep.worker.calls import CallScanner, forced_schema
from skep.worker.chunks import (
    ChatChunks,
    chat_logprobs,
    encode_json,
    finish_reason,
    text_of_piece,
    tokens_of,
)
from skep.worker.reader import AnswerReader
from skep.worker.reasoning import ReasoningSplitter, Split
from skep.worker.request import Request
from skep.worker.sampling import constraint_of, params_of
from skep.worker.service import Service

KIND_CHUNK, KIND_WHOLE = "chat.completion.chunk", "chat.completion"


async def chat(service: Service, request: Request) -> None:
    """Answer a chat completion, streaming or whole."""
    body = await request.parse(ChatRequest, service.metrics.unknown_fields)
    service.check_model(body.model)
    answer_id = answers.answer_id(request, "chatcmpl")
    prompt = await _prompt(service, body)
    wanted = [
        _generation(service, body, prompt, job_id, choice, client=request.header(b"x-skep-client"))
        for choice, job_id in enumerate(answers.job_ids(answer_id, body.n or 1))
    ]
    jobs = await answers.submit_all(service, wanted)

    async def work() -> None:
        tally = Tally()
        if body.stream:
            envelope = answers.envelope(service, body, answer_id, KIND_CHUNK)
            chunks = [ChatChunks(envelope, index) for index in range(len(jobs))]
            writers = [
                ChatWriter(job, one, tally, reader_for(service, body), logprobs=bool(body.logprobs))
                for (job, _), one in zip(jobs, chunks, strict=True)
            ]
            opening = b"".join(one.opening() for one in chunks)
            await answers.stream(request, jobs, writers, opening=opening, envelope=envelope, tally=tally)
        else:
            found = await answers.collect_all(jobs)
            choices = [_choice(service, body, index, events, tally) for index, events in enumerate(found)]
            await request.answer(answers.whole(service, answer_id, KIND_WHOLE, choices, tally))

    await answers.answer(service, request, jobs, "/v1/chat/completions", work)


def _generation(
    service: Service, body: ChatRequest, prompt: tuple[int, ...], job_id: str, choice: int, *, client: str
) -> GenerationRequest:
    return GenerationRequest(
        job_id=job_id,
        prompt=prompt,
        max_tokens=body.tokens_max or service.options.context,
        sampling=params_of(body, choice=choice),
        stop=body.stops,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        constraint=_constraint(body),
        deadline_s=service.options.timeout_s,
        ignore_end=bool(body.ignore_eos),
        client=client,
    )


class ChatWriter:
    """One choice's events as chunks."""

    def __init__(
        self, job: Job, chunks: ChatChunks, tally: Tally, reader: AnswerReader | None, *, logprobs: bool
    ) -> None:
        self._job, self._chunks, self._tally = job, chunks, tally
        self._reader, self._logprobs = reader, logprobs

    def write(self, events: Sequence[Event]) -> bytes:
        """Return the bytes of some events."""
        parts: list[bytes] = []
        text = self._chunks.text
        for event in events:
            if type(event) is Token:
                if self._reader is not None:
                    parts += self._parts(self._reader.feed(event.text))
                elif self._logprobs:
                    found = chat_logprobs([event], text_of_piece)
                    parts.append(self._chunks.text_with_logprobs(event.text, found))
                elif event.text:
                    parts.append(text(event.text))
            elif isinstance(event, Finished):
                parts += self._end(event)
        return b"".join(parts)

    def _parts(self, split: Split) -> list[bytes]:
        parts = [self._chunks.reasoning(split.reasoning)] if split.reasoning else []
        return [*parts, self._chunks.text(split.content)] if split.content else parts

    def _end(self, event: Finished) -> list[bytes]:
        self._tally.add(0, event)
        reason, parts = finish_reason(event), []
        if self._reader is not None:
            split, calls = self._reader.finish()
            parts = self._parts(split)
            if calls:
                parts.append(self._chunks.calls(calls))
                reason = "tool_calls"
        return [*parts, self._chunks.finish(reason, self._job.seed)]


def reader_for(service: Service, body: ChatRequest) -> AnswerReader | None:
    """Return what reads an answer; None when all of it is plain content, which streams fastest."""
    scanner = None
    if body.tools and body.tool_choice != "none":
        scanner = CallScanner(frozenset(tool.function.name for tool in body.tools))
    splitter = None
    if service.thinks and not body.logprobs and _constraint(body) is None:
        splitter = ReasoningSplitter(begun=service.thinks_at_once)
    return AnswerReader(splitter, scanner) if splitter or scanner else None


def _choice(
    service: Service, body: ChatRequest, index: int, events: list[Event], tally: Tally
) -> dict[str, Any]:
    end = events[-1]
    assert isinstance(end, Finished)
    tally.add(0, end)
    tokens = tokens_of(events)
    split, calls = Split("", "".join(token.text for token in tokens)), list[ToolCall]()
    reader = reader_for(service, body)
    if reader is not None:
        fed = reader.feed(split.content)
        rest, calls = reader.finish()
        split = Split(fed.reasoning + rest.reasoning, fed.content + rest.content)
    content = None if calls and not split.content else split.content
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if split.reasoning:
        message["reasoning_content"] = split.reasoning
    if calls:
        message["tool_calls"] = msgspec.to_builtins(calls)
    return {
        "index": index,
        "message": message,
        "logprobs": chat_logprobs(tokens, text_of_piece) if body.logprobs else None,
        "finish_reason": "tool_calls" if calls else finish_reason(end),
        "seed": answers.seed_of(events),
    }


def _constraint(body: ChatRequest) -> Constraint | None:
    """Return what the answer must match: a call that must be made comes before the response format."""
    if body.tools and (body.tool_choice == "required" or isinstance(body.tool_choice, NamedToolChoice)):
        schema = forced_schema(body.tools, body.tool_choice)
        return Constraint(kind="json_schema", text=encode_json(schema).decode())
    return constraint_of(body)


async def _prompt(service: Service, body: ChatRequest) -> tuple[int, ...]:
    tools = None if body.tool_choice == "none" or not body.tools else msgspec.to_builtins(body.tools)
    messages = plain_messages(body.messages)
    return tuple(await service.chat_prompt(messages, tools=tools, variables=body.chat_template_kwargs))


def plain_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Return messages as templates want them: contents as text, `developer` as `system`."""
    return [
        {
            **msgspec.to_builtins(message),
            "role": "system" if message.role == "developer" else message.role,
            "content": message.text,
        }
        for message in messages
    ]
