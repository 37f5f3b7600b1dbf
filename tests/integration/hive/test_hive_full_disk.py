"""A disk that is full while a hive works on it: everything that serves goes on, what cannot be done says why."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from skep.errors import SkepError
from skep.hive.declared import Wish
from skep.spec.config import FakeDeviceConfig
from skep.spec.pool import PoolSpec

DEVICE = FakeDeviceConfig(index=0, memory_total_bytes=2_000_000_000)
POOL = PoolSpec(id="p", model="fake:demo", backend="fake", devices="0")
SIZE = 4 * 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Use up every last byte."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


@pytest.mark.root
async def test_a_full_disk_loses_nothing_and_ends_nothing(hive_here, comes_true, disk: Path) -> None:
    async with (
        hive_here(folder=disk, fake_devices=(DEVICE,), pools=(POOL,)) as core,
        ClientSession() as client,
    ):
        pool = core.pools.get("p")
        await comes_true(lambda: pool.state == "ready")
        pid, endpoint = pool.serving[0].running.process.pid, pool.serving[0].running.endpoint
        filler = fill(disk)

        for refused in (
            core.pools.declare(PoolSpec(id="q", model="fake:other", backend="fake", devices="0")),
            pool.drain(0.0),
        ):
            with pytest.raises(SkepError) as failed:
                await refused
            assert failed.value.code.startswith("store_")
        assert "q" not in core.pools.by_id
        assert pool.declared.wish is Wish.LOADED
        await pool.reload("fake:other", 0.0)
        await comes_true(lambda: pool.last_reload is not None)
        assert pool.last_reload["outcome"] == "rolled_back"

        body = {"model": "demo", "prompt": "hello", "max_tokens": 4}
        headers = {"authorization": f"Bearer {endpoint.token}"}
        async with client.post(f"{endpoint.url}/v1/completions", json=body, headers=headers) as reply:
            assert reply.status == 200, "what serves goes on serving, its log lines lost"
        assert pool.serving[0].running.process.pid == pid

        pool.serving[0].running.process.kill()
        await comes_true(lambda: pool.state == "unready")
        await comes_true(
            lambda: any(
                "No space left" in (one.last_error or {}).get("message", "") for one in pool.replicas.values()
            )
        )
        assert all(one.running is None for one in pool.replicas.values()), (
            "what cannot be recorded is not spawned"
        )

        filler.unlink()
        await pool.reset()
        await comes_true(lambda: pool.state == "ready")
        assert len(list((disk / "run" / "engines").glob("*.json"))) == 1
        await core.pools.declare(PoolSpec(id="q", model="fake:other", backend="fake", devices="0"))


@pytest.fixture
async def shelf():
    """An HTTP server with a file that is larger than the disk, and does not say so beforehand."""

    async def give(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse()
        reply.enable_chunked_encoding()
        await reply.prepare(request)
        try:
            for _ in range(2 * SIZE // 65536):
                await reply.write(b"x" * 65536)
        except ConnectionError:
            return reply
        return reply

    app = web.Application()
    app.router.add_get("/model.gguf", give)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/model.gguf"
    await runner.cleanup()


@pytest.mark.root
async def test_a_disk_that_fills_during_a_download_is_the_cause_that_is_told(
    hive_here, comes_true, disk: Path, shelf: str
) -> None:
    spec = PoolSpec(id="d", model=f"{shelf}#sha256={'0' * 64}", backend="fake", devices="0")
    async with hive_here(folder=disk, fake_devices=(DEVICE,), pools=(POOL, spec)) as core:
        pool, other = core.pools.get("d"), core.pools.get("p")
        await comes_true(lambda: pool.state == "unready")
        assert "pace" in pool.last_error["message"]
        assert pool.last_error["code"] not in ("internal", "os_error")
        assert pool.retrying.due_at is not None, "it is tried again"
        await comes_true(lambda: other.state == "ready")
