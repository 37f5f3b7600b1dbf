"""The bytes of OpenAI's stream chunks, formatted ahead: a chunk is its head, the JSON of its text, and its tail.

Measured on the tiny model, making each chunk as a struct costs more than decoding its token; this costs about 0.3 µs.
"""

from typing import Any, Final

import msgspec

from skep.runtime.request import Event, Finished, Token, TokenLogprob
from skep.wire.openai import DONE, ToolCall

encode_json = msgspec.json.Encoder().encode
FINISH_REASONS: Final = {"max_tokens": "length", "stop_sequence": "stop", "end_of_text": "stop"}
DONE_EVENT: Final = f"data: {DONE}\n\n".encode()


def event_bytes(body: dict[str, Any]) -> bytes:
    """Return one event of the stream."""
    return b"data: " + encode_json(body) + b"\n\n"


class Envelope:
    """What all chunks of one answer share."""

    def __init__(self, *, id: str, created: int, model: str, kind: str, include_usage: bool) -> None:  # noqa: A002 - the field's name
        self.fields = {"id": id, "object": kind, "created": created, "model": model}
        self.include_usage = include_usage
        self.head = b"data: " + encode_json(self.fields)[:-1]
        self.tail = b"]," + (b'"usage":null}' if include_usage else b'"system_fingerprint":null}') + b"\n\n"

    def chunk(self, choice: bytes) -> bytes:
        """Return a chunk with one choice, given as JSON."""
        return b'%b,"choices":[%b%b' % (self.head, choice, self.tail)

    def usage(self, usage: dict[str, Any]) -> bytes:
        """Return the last chunk, with no choices."""
        return event_bytes({**self.fields, "choices": [], "usage": usage})


class ChoiceChunks:
    """The chunks of one choice, in order: opening, texts, extra deltas, finish. Subclasses know the shape."""

    def __init__(self, envelope: Envelope, index: int) -> None:
        self._envelope = envelope
        self._index = index
        head, tail = self._text_frame()
        self._text_head = envelope.head + b',"choices":[' + head
        self._text_tail = tail + envelope.tail

    def _text_frame(self) -> tuple[bytes, bytes]:
        """Return the JSON of a choice before and after its text."""
        raise NotImplementedError

    def opening(self) -> bytes:
        """Return what comes before the first text."""
        return b""

    def text(self, text: str) -> bytes:
        """Return a chunk with this text."""
        return self._text_head + encode_json(text) + self._text_tail

    def text_with_logprobs(self, text: str, logprobs: dict[str, Any] | None) -> bytes:
        """Return a chunk with this text and its log-probabilities."""
        raise NotImplementedError

    def finish(self, reason: str, seed: int) -> bytes:
        """Return the chunk that ends the choice, and tells its seed."""
        raise NotImplementedError


class ChatChunks(ChoiceChunks):
    """`chat.completion.chunk`: the role first, then contents."""

    def _text_frame(self) -> tuple[bytes, bytes]:
        head = b'{"index":%d,"delta":{"content":' % self._index
        return head, b'},"logprobs":null,"finish_reason":null}'

    def _choice(self, delta: dict[str, Any], **fields: Any) -> bytes:
        body = {"index": self._index, "delta": delta, "logprobs": None, "finish_reason": None, **fields}
        return self._envelope.chunk(encode_json(body))

    def opening(self) -> bytes:
        """Return the chunk with the role."""
        return self._choice({"role": "assistant", "content": ""})

    def text_with_logprobs(self, text: str, logprobs: dict[str, Any] | None) -> bytes:
        """Return a content chunk with log-probabilities."""
        return self._choice({"content": text}, logprobs=logprobs)

    def reasoning(self, text: str) -> bytes:
        """Return a chunk of the model's reasoning."""
        return self._choice({"reasoning_content": text})

    def calls(self, calls: list[ToolCall]) -> bytes:
        """Return the chunk with the tool calls, whole."""
        parts = [{"index": index, **msgspec.to_builtins(call)} for index, call in enumerate(calls)]
        return self._choice({"tool_calls": parts})

    def finish(self, reason: str, seed: int) -> bytes:
        """Return the chunk with the finish reason."""
        return self._choice({}, finish_reason=reason, seed=seed)


class TextChunks(ChoiceChunks):
    """`text_completion`: chunks have the shape of the whole."""

    def _text_frame(self) -> tuple[bytes, bytes]:
        return b'{"index":%d,"text":' % self._index, b',"logprobs":null,"finish_reason":null}'

    def text_with_logprobs(self, text: str, logprobs: dict[str, Any] | None) -> bytes:
        """Return a text chunk with log-probabilities."""
        body = {"index": self._index, "text": text, "logprobs": logprobs, "finish_reason": None}
        return self._envelope.chunk(encode_json(body))

    def finish(self, reason: str, seed: int) -> bytes:
        """Return the chunk with the finish reason."""
        body = {"index": self._index, "text": "", "logprobs": None, "finish_reason": reason, "seed": seed}
        return self._envelope.chunk(encode_json(body))


def finish_reason(end: Finished) -> str:
    """Return OpenAI's word for how it ended."""
    return FINISH_REASONS[end.stop_reason]


def chat_logprobs(events: list[Token], piece_text: Any) -> dict[str, Any]:
    """Return the chat form of the tokens' log-probabilities; `piece_text` turns a token's bytes into text."""
    content = []
    for event in events:
        if event.logprob is not None:
            own = _entry(event.logprob, piece_text)
            own["top_logprobs"] = [_entry(one, piece_text) for one in event.top]
            content.append(own)
    return {"content": content, "refusal": None}


def text_logprobs(events: list[Token], piece_text: Any, offset: int, *, top: int) -> dict[str, Any]:
    """Return the older form; `offset` is where the first token's text starts in the answer."""
    found: dict[str, Any] = {"tokens": [], "token_logprobs": [], "text_offset": []}
    rivals: list[dict[str, float]] = []
    for event in events:
        if event.logprob is None:
            continue
        text = piece_text(event.logprob.piece)
        found["tokens"].append(text)
        found["token_logprobs"].append(event.logprob.logprob)
        found["text_offset"].append(offset)
        offset += len(text)
        rivals.append({piece_text(one.piece): one.logprob for one in event.top})
    found["top_logprobs"] = rivals if top else None
    return found


def _entry(one: TokenLogprob, piece_text: Any) -> dict[str, Any]:
    return {"token": piece_text(one.piece), "logprob": one.logprob, "bytes": list(one.piece)}


def text_of_piece(piece: bytes) -> str:
    """Return a token's bytes as text; what is no whole UTF-8 is replaced, `bytes` has it exactly."""
    return piece.decode(errors="replace")


def tokens_of(events: list[Event]) -> list[Token]:
    """Return the tokens among some events."""
    return [event for event in events if isinstance(event, Token)]
