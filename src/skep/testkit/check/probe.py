"""Asking the server that is checked: every exchange bounded, and kept as evidence."""

import asyncio
import io
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from skep.testkit.check.transcript import Transcript
from skep.testkit.check.verdict import Broken, Unsupported
from skep.web.client import make_client

if TYPE_CHECKING:
    from skep.testkit.check.process import ServerProcess

PROMPT = "What color is the sky?"
LONG_PROMPT = "Count from one to a thousand, in words, and do not stop."
BODY_BYTES_MAX = 8 << 20
STREAM_BYTES_MAX = 16 << 20
SHOWN_CHARS_MAX = 400
CHAT, COMPLETIONS, EMBEDDINGS, MODELS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/models",
)
_NOT_OFFERED = frozenset({404, 405, 501})
_NOT_TAKEN = frozenset({400, 422})


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What is checked. `patience_s` bounds one exchange; `slots_max` how many streams are opened to fill the server."""

    url: str
    model: str = ""
    api_key: str = ""
    patience_s: float = 30.0
    slots_max: int = 16

    def __repr__(self) -> str:
        """Return it without its key."""
        return f"Target({self.url}, {self.model})"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer."""

    request: str
    status: int
    headers: dict[str, str]
    body: bytes
    spent_s: float

    def json(self) -> dict[str, Any]:
        """Return the body as an object. Raises: Broken."""
        try:
            found = msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Broken(f"the answer ({self.status}) is not JSON: {error}", self.trace) from None
        if not isinstance(found, dict):
            raise Broken(f"the answer ({self.status}) is not a JSON object", self.trace)
        return found

    @property
    def trace(self) -> str:
        """The exchange, cut to what fits a terminal."""
        body = self.body[:SHOWN_CHARS_MAX].decode("utf-8", "replace")
        return f"> {self.request}\n< {self.status} {body}"


class Probe:
    """The checking side. What several clauses look at is asked once, and remembered."""

    def __init__(
        self, target: Target, client: aiohttp.ClientSession, process: "ServerProcess | None" = None
    ) -> None:
        self.target, self.process = target, process
        self._client = client
        self._known: dict[str, Any] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, target: Target, process: "ServerProcess | None" = None) -> "AsyncGenerator[Probe]":
        """Yield a probe with connections of its own."""
        async with make_client(
            token=target.api_key or None, total_s=None, connections_max=0, keeps_alive=False
        ) as client:
            yield cls(target, client, process)

    def move(self, url: str) -> None:
        """Ask at another address from now on, and forget what was answered at the old one."""
        self.target = msgspec.structs.replace(self.target, url=url)
        self._known.clear()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for connections without HTTP."""
        parts = urlsplit(self.target.url)
        return parts.hostname or "127.0.0.1", parts.port or (443 if parts.scheme == "https" else 80)

    async def once(self, name: str, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Return what `ask` gave the first time."""
        if name not in self._known:
            self._known[name] = await ask()
        return self._known[name]

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
        within_s: float | None = None,
    ) -> Answer:
        """Exchange one request for one answer. Raises: Broken when there is none in time."""
        limit_s = within_s or self.target.patience_s
        data = raw if raw is not None else None if body is None else msgspec.json.encode(body)
        shown = _shown(method, path, data)
        given = {"content-type": "application/json", **(headers or {})} if data is not None else headers
        began = time.monotonic()
        try:
            async with (
                asyncio.timeout(limit_s),
                self._client.request(
                    method,
                    self.target.url + path,
                    data=None if data is None else io.BytesIO(data),
                    headers=given,
                    allow_redirects=False,
                ) as reply,
            ):
                found = await reply.content.read(BODY_BYTES_MAX)
                while rest := await reply.content.read(BODY_BYTES_MAX - len(found)):
                    found += rest
                return Answer(
                    request=shown,
                    status=reply.status,
                    headers={name.lower(): value for name, value in reply.headers.items()},
                    body=found,
                    spent_s=time.monotonic() - began,
                )
        except TimeoutError:
            raise Broken(f"no answer within {limit_s:g} s", f"> {shown}") from None
        except aiohttp.ClientError as error:
            raise Broken(f"no answer: {error or type(error).__name__}", f"> {shown}") from None

    def asking(self, prompt: str = PROMPT, **fields: Any) -> dict[str, Any]:
        """Return a chat request: greedy and short, unless told otherwise."""
        messages = [{"role": "user", "content": prompt}]
        body = {
            "model": self.target.model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": 16,
            **fields,
        }
        return {name: value for name, value in body.items() if value is not None}

    async def chat(self, prompt: str = PROMPT, **fields: Any) -> Answer:
        """Ask for a whole chat answer that must succeed. Raises: Broken."""
        answer = await self.send("POST", CHAT, self.asking(prompt, **fields))
        if answer.status != 200:
            raise Broken(f"a plain chat request is answered with {answer.status}", answer.trace)
        return answer

    async def offered(self, path: str, body: Any, what: str) -> Answer:
        """Ask for something that a server need not offer. Raises: Unsupported, Broken."""
        answer = await self.send("POST", path, body)
        if answer.status in _NOT_OFFERED | _NOT_TAKEN:
            raise Unsupported(f"{what}: answered with {answer.status}", answer.trace)
        if answer.status != 200:
            raise Broken(f"{what}: answered with {answer.status}", answer.trace)
        return answer

    @asynccontextmanager
    async def streaming(
        self, body: dict[str, Any], *, path: str = CHAT
    ) -> AsyncGenerator["tuple[Transcript, AsyncGenerator[Transcript]]"]:
        """Open a stream: yield its transcript, and what reads on (one step a network read). Leaving closes it."""
        data = msgspec.json.encode(body | {"stream": True})
        shown = _shown("POST", path, data)
        try:
            async with asyncio.timeout(self.target.patience_s):
                reply = await self._client.post(
                    self.target.url + path, data=data, headers={"content-type": "application/json"}
                )
        except TimeoutError:
            raise Broken(f"no answer within {self.target.patience_s:g} s", f"> {shown}") from None
        except aiohttp.ClientError as error:
            raise Broken(f"no answer: {error or type(error).__name__}", f"> {shown}") from None
        found = Transcript(
            request=shown,
            status=reply.status,
            content_type=reply.headers.get("content-type", ""),
            headers={name.lower(): value for name, value in reply.headers.items()},
        )
        reading = self._read(reply, found)
        try:
            yield found, reading
        finally:
            await reading.aclose()
            reply.close()  # Closed, not released: the server must see that its reader has gone.

    async def _read(self, reply: aiohttp.ClientResponse, found: Transcript) -> AsyncGenerator[Transcript]:
        try:
            while True:
                async with asyncio.timeout(self.target.patience_s):
                    data = await reply.content.readany()
                if not data:
                    return
                found.feed(data, time.monotonic())
                if len(found.raw) > STREAM_BYTES_MAX:
                    raise Broken(f"the stream is longer than {STREAM_BYTES_MAX >> 20} MiB", found.tail())
                yield found
        except TimeoutError:
            raise Broken(f"the stream fell silent for {self.target.patience_s:g} s", found.tail()) from None
        except aiohttp.ClientError:
            found.is_cut = True

    async def stream(self, body: dict[str, Any] | None = None, *, path: str = CHAT) -> Transcript:
        """Return a whole stream. Raises: Broken when it is refused, silent or endless."""
        async with self.streaming(body or self.asking(), path=path) as (found, reading):
            async for _ in reading:
                pass
        if found.status != 200:
            raise Broken(
                f"a plain streaming request is answered with {found.status}",
                found.excerpt(found.raw[:SHOWN_CHARS_MAX].decode("utf-8", "replace")),
            )
        return found

    async def sample(self) -> Transcript:
        """Return the plain stream that several clauses look at."""
        found: Transcript = await self.once("sample", self.stream)
        return found


def _shown(method: str, path: str, data: bytes | None) -> str:
    body = "" if data is None else f" {data[:SHOWN_CHARS_MAX].decode('utf-8', 'replace')}"
    return f"{method} {path}{body}"
