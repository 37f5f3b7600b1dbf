"""A running server, and a raw client that sends exactly the bytes it is told to."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from skep.process.socket import bind_listener
from skep.web.limits import Limits
from skep.web.server import HttpServer


class RawClient:
    """One TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def response(self) -> tuple[int, bytes]:
        """Read one response with a content length."""
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            return int(head.split(b" ")[1]), head + await self.reader.readexactly(length)

    async def is_closed(self) -> bool:
        async with asyncio.timeout(10):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True


@pytest.fixture
async def serve() -> AsyncGenerator[Callable[..., Any], None]:
    """Start `app` under limits; returns the server."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(app: Any, **limits: Any) -> HttpServer:
            server = HttpServer(
                app, listen=[bind_listener("127.0.0.1", 0)], limits=Limits(**limits), grace_s=1.0
            )
            return await stack.enter_async_context(server)

        yield start


@pytest.fixture
async def connect() -> AsyncGenerator[Callable[..., Any], None]:
    """Open raw connections to a server."""
    writers: list[asyncio.StreamWriter] = []

    async def open_one(server: HttpServer) -> RawClient:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.ports[0])
        writers.append(writer)
        return RawClient(reader, writer)

    yield open_one
    for writer in writers:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
