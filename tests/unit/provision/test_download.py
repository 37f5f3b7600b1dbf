"""Downloads resume, are checked before they appear, and are shared."""

import asyncio
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from skep.errors.provision import BadReference, ChecksumMismatch, DownloadFailed, NoSpace
from skep.provision.download import TRIES_MAX, Want, download
from skep.provision.progress import Progress


class Naps:
    """A sleep that only remembers."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []

    async def __call__(self, delay_s: float) -> None:
        self.slept_s.append(delay_s)


def want(server, tmp_path: Path) -> Want:
    return Want(url=server.url, target=tmp_path / "model.gguf", sha256=server.sha256)


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


async def test_a_file_appears_whole_with_progress(file_server, tmp_path: Path) -> None:
    told: list[Progress] = []
    path = await download(want(file_server, tmp_path), on_progress=told.append)
    assert path.read_bytes() == file_server.body
    assert told[-1].done == told[-1].total == len(file_server.body)
    assert left_over(tmp_path) == ["model.gguf"]


async def test_a_cut_connection_is_resumed_from_the_byte_it_reached(file_server, tmp_path: Path) -> None:
    file_server.faults = ["cut:300000"]
    path = await download(want(file_server, tmp_path), sleep=Naps())
    assert path.read_bytes() == file_server.body
    first, second = file_server.ranges
    assert first == ""
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 300_000


async def test_a_second_run_goes_on_where_a_failed_one_stopped(file_server, tmp_path: Path) -> None:
    file_server.faults = ["cut:200000", *["503"] * TRIES_MAX]
    with pytest.raises(DownloadFailed):
        await download(want(file_server, tmp_path), sleep=Naps())
    file_server.faults, file_server.ranges = [], []
    path = await download(want(file_server, tmp_path), sleep=Naps())
    assert path.read_bytes() == file_server.body
    assert file_server.ranges[0].startswith("bytes=")


async def test_a_changed_etag_starts_over(file_server, tmp_path: Path) -> None:
    file_server.faults = ["cut:200000", *["503"] * TRIES_MAX]
    with pytest.raises(DownloadFailed):
        await download(want(file_server, tmp_path), sleep=Naps())
    file_server.body, file_server.etag = file_server.body[::-1], '"v2"'
    path = await download(want(file_server, tmp_path), sleep=Naps())
    assert path.read_bytes() == file_server.body


async def test_a_416_for_stale_bytes_starts_over(file_server, tmp_path: Path) -> None:
    file_server.faults = ["cut:500000", *["503"] * TRIES_MAX]
    with pytest.raises(DownloadFailed):
        await download(want(file_server, tmp_path), sleep=Naps())
    file_server.body = file_server.body[:1000]
    path = await download(want(file_server, tmp_path), sleep=Naps())
    assert path.read_bytes() == file_server.body


async def test_a_416_for_a_part_that_is_whole_is_the_end(file_server, tmp_path: Path) -> None:
    wanted = want(file_server, tmp_path)
    (tmp_path / "model.gguf.part").write_bytes(file_server.body)
    (tmp_path / "model.gguf.part.json").write_text(f'{{"url": "{file_server.url}", "validator": "\\"v1\\""}}')
    path = await download(wanted, sleep=Naps())
    assert path.read_bytes() == file_server.body
    assert len(file_server.ranges) == 1


async def test_a_server_that_ignores_the_range_is_not_appended_to(file_server, tmp_path: Path) -> None:
    file_server.faults = ["cut:200000", "ignore-range"]
    path = await download(want(file_server, tmp_path), sleep=Naps())
    assert path.read_bytes() == file_server.body


async def test_a_wrong_checksum_leaves_no_file(file_server, tmp_path: Path) -> None:
    file_server.faults = ["corrupt"]
    with pytest.raises(ChecksumMismatch) as raised:
        await download(want(file_server, tmp_path))
    assert raised.value.expected == file_server.sha256
    assert left_over(tmp_path) == []


async def test_retry_after_is_honoured_and_tries_are_bounded(file_server, tmp_path: Path) -> None:
    file_server.faults = ["503"] * 50
    naps = Naps()
    with pytest.raises(DownloadFailed, match="503"):
        await download(want(file_server, tmp_path), sleep=naps)
    assert naps.slept_s == [1.0] * (TRIES_MAX - 1)
    assert len(file_server.ranges) == TRIES_MAX


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_a_refusal_is_not_retried(file_server, tmp_path: Path, status: int) -> None:
    file_server.faults = [str(status)]
    with pytest.raises(DownloadFailed, match=str(status)):
        await download(want(file_server, tmp_path))
    assert len(file_server.ranges) == 1


async def test_a_disk_without_room_fails_before_a_byte_is_written(
    file_server, tmp_path: Path, monkeypatch
) -> None:

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=10, used=9, free=1))
    with pytest.raises(NoSpace) as raised:
        await download(want(file_server, tmp_path))
    assert raised.value.need_bytes == len(file_server.body)
    assert left_over(tmp_path) == []


async def test_concurrent_askers_share_one_download(file_server, tmp_path: Path) -> None:
    paths = await asyncio.gather(*(download(want(file_server, tmp_path)) for _ in range(5)))
    assert {path.read_bytes() for path in paths} == {file_server.body}
    assert len(file_server.ranges) == 1


@pytest.mark.parametrize(
    "url", ["ftp://example.org/x", "http://example.org/x", "file:///etc/passwd", "nonsense"]
)
async def test_only_https_and_loopback_are_fetched(url: str, tmp_path: Path) -> None:
    with pytest.raises(BadReference):
        await download(Want(url=url, target=tmp_path / "x"))


async def test_a_cancelled_download_keeps_its_bytes_and_frees_the_lock(file_server, tmp_path: Path) -> None:
    started = asyncio.Event()
    file_server.faults = ["cut:200000"]

    async def never(_: float) -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(download(want(file_server, tmp_path), sleep=never))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (tmp_path / "model.gguf.part").stat().st_size > 0
    path = await download(want(file_server, tmp_path))
    assert path.read_bytes() == file_server.body
