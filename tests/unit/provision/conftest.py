"""A real HTTP file server whose faults a test can script."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest
from aiohttp import web


@dataclass
class FileServer:
    """Serves one body; each request takes the next fault of `faults`, none when they are used up.

    A fault is a status, `redirect`, `ignore-range`, `corrupt`, `chunked` (no length), `cut:N` and `stall:N` (close, or
    fall silent, after N bytes), `gate:N` (go on when `released`), `slow:MS` (a pause between parts), `longer:N` and `shorter:N` (a length that lies).
    """

    body: bytes
    etag: str = '"v1"'
    faults: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    url: str = ""
    headers: dict[str, str] = field(default_factory=lambda: {"Retry-After": "1"})
    location: str = ""
    released: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.ranges.append(request.headers.get("Range", ""))
        fault = self.faults.pop(0) if self.faults else ""
        if fault.isdigit():
            return web.Response(status=int(fault), headers=self.headers)
        if fault == "redirect":
            return web.Response(status=307, headers={"Location": self.location or self.url})
        start = self._start(request) if fault != "ignore-range" else 0
        if start is None or start > len(self.body):
            return web.Response(status=416, headers={"Content-Range": f"bytes */{len(self.body)}"})
        return await self._send(request, start, fault)

    def _start(self, request: web.Request) -> int | None:
        if "Range" not in request.headers or request.headers.get("If-Range") != self.etag:
            return 0
        start = int(request.headers["Range"].removeprefix("bytes=").rstrip("-"))
        return start if start < len(self.body) else None

    async def _send(self, request: web.Request, start: int, fault: str) -> web.StreamResponse:
        rest = self.body[start:]
        kind, _, number = fault.partition(":")
        lie = {"longer": 1, "shorter": -1}.get(kind, 0) * int(number or 0)
        headers = {"ETag": self.etag, "Content-Length": str(len(rest) + lie)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(self.body) - 1}/{len(self.body)}"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        if kind == "chunked":
            del response.headers["Content-Length"]
        await response.prepare(request)
        await self._write(response, rest, kind, int(number or 0))
        if kind in {"cut", "longer"}:
            assert request.transport is not None
            request.transport.close()
        return response

    async def _write(self, response: web.StreamResponse, rest: bytes, kind: str, number: int) -> None:
        if kind in {"cut", "stall", "gate"}:
            await response.write(rest[:number])
            if kind != "cut":
                await self.released.wait()
            if kind == "gate":
                await response.write(rest[number:])
        elif kind == "slow":
            part = len(rest) // 8
            for begin in range(0, len(rest), part):
                await response.write(rest[begin : begin + part])
                await asyncio.sleep(number / 1000)
        else:
            await response.write(
                b"x" * len(rest)
                if kind == "corrupt"
                else rest[: len(rest) - number]
                if kind == "shorter"
                else rest
            )


@pytest.fixture
async def file_server() -> AsyncGenerator[FileServer]:
    server = FileServer(body=bytes(range(256)) * 4096)
    app = web.Application()
    app.router.add_get("/{name}", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}/model.gguf"
    yield server
    server.released.set()
    await runner.cleanup()
