"""What a hub does to a download: refusals, short files, full disks, and an asker that goes."""

import asyncio
import hashlib
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from aiohttp import web

from skep.errors.provision import ChecksumMismatch, HubFailed, NoSpace, StepForbidden
from skep.provision.model import ensure_model
from skep.provision.progress import Progress
from skep.spec.model import ModelRef, parse_ref

BODY = b"GGUF" + bytes(3_000_000)
REF = parse_ref("hf:owner/repo/model.gguf")


class SlowHub:
    """Sends its file in parts, with a pause after each when it `is_slow`."""

    def __init__(self) -> None:
        self.is_slow = False
        self.gets = 0
        self.closed = asyncio.Event()

    async def resolve(self, request: web.Request) -> web.StreamResponse:
        headers = {"ETag": '"abc"', "X-Repo-Commit": "c" * 40, "Content-Length": str(len(BODY))}
        if request.method == "HEAD":
            return web.Response(headers=headers)
        self.gets += 1
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        try:
            for begin in range(0, len(BODY), 1 << 16):
                await response.write(BODY[begin : begin + (1 << 16)])
                if self.is_slow:
                    await asyncio.sleep(0.02)
        except (ConnectionError, asyncio.CancelledError):
            self.closed.set()
            raise
        return response


@pytest.fixture
async def hub(monkeypatch) -> AsyncGenerator[SlowHub]:
    served = SlowHub()
    app = web.Application()
    app.router.add_route("*", "/owner/repo/resolve/{revision}/model.gguf", served.resolve)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{runner.addresses[0][1]}")
    yield served
    await runner.cleanup()


def held_to(sha256: str) -> ModelRef:
    return msgspec.structs.replace(REF, sha256=sha256)


async def test_a_hub_file_is_held_to_the_checksum_of_the_configuration(hub: SlowHub, tmp_path: Path) -> None:
    right = hashlib.sha256(BODY).hexdigest()
    path = await ensure_model(held_to(right), root=tmp_path)
    assert path.read_bytes() == BODY
    with pytest.raises(ChecksumMismatch):
        await ensure_model(held_to("0" * 64), root=tmp_path)
    assert hub.gets == 1


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
async def test_a_disk_without_room_is_told_before_a_byte_is_written(
    hub: SlowHub, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=10, used=9, free=1))
    with pytest.raises(NoSpace) as raised:
        await ensure_model(REF, root=tmp_path)
    assert raised.value.need_bytes == len(BODY)


async def test_a_download_ends_when_its_asker_has_gone(hub: SlowHub, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16)
    hub.is_slow = True
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell(progress: Progress) -> None:
        if progress.done:
            loop.call_soon_threadsafe(began.set)

    task = asyncio.create_task(ensure_model(REF, root=tmp_path, on_progress=tell))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(20):
        await hub.closed.wait()
    assert not list(tmp_path.rglob("model.gguf")), "what came is kept as a part, never under its name"


async def test_a_name_that_no_hub_takes_is_told(hub: SlowHub, tmp_path: Path) -> None:
    with pytest.raises(HubFailed, match="alphanumeric"):
        await ensure_model(parse_ref("hf:a--b/..c/model.gguf"), root=tmp_path)


@pytest.mark.slow  # huggingface_hub tries five times, with pauses of its own.
async def test_a_hub_that_is_away_is_told_with_what_to_do(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubFailed, match="resume"):
        await ensure_model(REF, root=tmp_path)
    with pytest.raises(StepForbidden):
        await ensure_model(REF, root=tmp_path, allow=frozenset())
