"""A client that costs as little as possible, so that the server is what is measured."""

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field

from beside.servers import Server


@dataclass
class Answer(asyncio.Protocol):
    """One request on one connection; as cheap as possible, so that the server is what is measured."""

    request: bytes
    done: asyncio.Future[None]
    sent_s: float = 0.0
    first_s: float = 0.0
    tail: bytes = b""
    gaps_s: list[float] = field(default_factory=list)
    _at_s: float = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        self.sent_s = time.perf_counter()
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Note when text comes, and keep the end of the stream."""
        if b'"content":"' in data or b'"text":"' in data:
            now = time.perf_counter()
            if self.first_s:
                self.gaps_s.append(now - self._at_s)
            elif b'"content":""' not in data or data.count(b'"content":"') > 1:
                self.first_s = now
            self._at_s = now
        self.tail = (self.tail + data)[-2048:]

    def connection_lost(self, _exc: Exception | None) -> None:
        """The answer is whole, or cut."""
        if not self.done.done():
            self.done.set_result(None)

    @property
    def tokens(self) -> int:
        """Return the number of tokens by the server's usage."""
        if b"[DONE]" not in self.tail:
            sys.exit(f"a stream was cut: {self.tail[-300:]!r}")
        return int(self.tail.rpartition(b'"completion_tokens":')[2].split(b",")[0].split(b"}")[0])


def chat_request(port: int, text: str, max_tokens: int) -> bytes:
    body = json.dumps({
        "model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": max_tokens, "temperature": 0,
        "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True},
    }).encode()  # fmt: skip
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    )
    return (head + f"content-length: {len(body)}\r\nconnection: close\r\n\r\n").encode() + body


async def ask(server: Server, text: str, max_tokens: int) -> Answer:
    loop = asyncio.get_running_loop()
    request = chat_request(server.port, text, max_tokens)
    _, answer = await loop.create_connection(
        lambda: Answer(request, loop.create_future()), "127.0.0.1", server.port
    )
    await answer.done
    return answer
