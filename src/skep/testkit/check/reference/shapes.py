"""OpenAI's shapes, whole and in chunks; each wrong one is a fault."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from skep.testkit.check.reference.ask import Ask
from skep.wire.sse import encode_event

CREATED = 1_700_000_000


@dataclass
class Said:
    """What was said: each choice's tokens and why it ended."""

    ask: Ask
    id: str
    model: str
    choices: list[tuple[list[str], str]]
    faults: frozenset[str]
    is_chat: bool = True
    _chunks: int = field(default=0)

    def usage(self) -> dict[str, int]:
        """Return the counts."""
        completion = sum(len(said) for said, _ in self.choices)
        wrong = 1 if "endpoints.usage" in self.faults else 0
        return {
            "prompt_tokens": self.ask.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.ask.prompt_tokens + completion + wrong,
        }

    def why(self, number: int) -> str:
        """Return the finish reason of a choice."""
        return "stop" if "truncation.length-is-told" in self.faults else self.choices[number][1]

    def whole(self) -> dict[str, Any]:
        """Return the answer that is not streamed."""
        found = {
            "id": self.id,
            "object": "chat.completion" if self.is_chat else "text_completion",
            "created": CREATED,
            "model": self.model,
            "choices": [self._choice(number) for number in range(len(self.choices))],
            "usage": self.usage(),
        }
        if "endpoints.chat" in self.faults and self.is_chat:
            del found["created"]
        return found

    def _choice(self, number: int) -> dict[str, Any]:
        said, _ = self.choices[number]
        text, why = "".join(said), self.why(number)
        if not self.is_chat:
            return {
                "index": number,
                "text": None if "endpoints.completions" in self.faults else text,
                "finish_reason": why,
            }
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if self.ask.tool:
            why = "tool_calls"
            arguments = "not json" if "endpoints.tools" in self.faults else '{"city": "Paris"}'
            call = {
                "id": "call_1",
                "type": "function",
                "function": {"name": self.ask.tool, "arguments": arguments},
            }
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        if self.ask.is_json and "endpoints.json-mode" in self.faults:
            message["content"] = "Sure! Here it is."
        choice: dict[str, Any] = {"index": number, "message": message, "finish_reason": why}
        if self.ask.top_logprobs is not None:
            choice["logprobs"] = {"content": [self._logprob(token) for token in said]}
        return choice

    def _logprob(self, token: str) -> dict[str, Any]:
        value = 0.5 if "endpoints.logprobs" in self.faults else -0.5
        beside = [
            {"token": f"{token}{number}", "logprob": value - number}
            for number in range(self.ask.top_logprobs or 0)
        ]
        return {"token": token, "logprob": value, "top_logprobs": beside}

    def pieces(self) -> Iterator[bytes]:
        """Yield the stream's events, one token each."""
        opened: dict[str, Any] = {} if "stream.role-first" in self.faults else {"role": "assistant"}
        for number in range(len(self.choices)):
            yield self._chunk(number, opened | {"content": ""})
        longest = max(len(said) for said, _ in self.choices)
        for at in range(longest):
            for number, (said, _) in enumerate(self.choices):
                if at < len(said):
                    yield from self._token(number, said, at)
        yield from self._end()

    def _token(self, number: int, said: list[str], at: int) -> Iterator[bytes]:
        token = said[at]
        if "stream.same-as-whole" in self.faults and at == len(said) - 1:
            return
        if "stream.characters-whole" in self.faults and not token.isascii():
            token = token.encode()[:-1].decode(errors="replace")
        if "stream.well-formed" in self.faults and at == 1:
            yield b"bogus: field\n"
        yield self._chunk(number, {"content": token})

    def _end(self) -> Iterator[bytes]:
        for number in range(len(self.choices)):
            for _ in range(2 if "stream.one-finish" in self.faults else 1):
                yield self._chunk(number, {}, finish=self.why(number))
        if self.ask.with_usage:
            usage = self.usage()
            if "stream.usage-counts" in self.faults:
                usage["completion_tokens"] += 1
                usage["total_tokens"] += 1
            if "stream.usage-last" in self.faults:
                yield self._chunk(0, {}, usage=usage)
            else:
                yield self._event({"choices": [], "usage": usage})
        if "stream.one-done" not in self.faults:
            yield encode_event("[DONE]")
        if "stream.silence-after-done" in self.faults:
            yield self._event({"choices": []})
        if "truncation.no-prefix" in self.faults:
            yield encode_event("[DONE]")

    def _chunk(
        self, number: int, delta: dict[str, Any], *, finish: str | None = None, usage: Any = None
    ) -> bytes:
        index = 0 if "stream.choices" in self.faults else number
        choice: dict[str, Any] = {"index": index, "finish_reason": finish}
        choice |= {"delta": delta} if self.is_chat else {"text": delta.get("content", "")}
        return self._event({"choices": [choice], **({"usage": usage} if usage else {})})

    def _event(self, body: dict[str, Any]) -> bytes:
        self._chunks += 1
        identity = f"{self.id}-{self._chunks}" if "stream.one-identity" in self.faults else self.id
        kind = "chat.completion.chunk" if self.is_chat else "text_completion"
        head = {"id": identity, "object": kind, "created": CREATED, "model": self.model}
        return encode_event(msgspec.json.encode(head | body))
