"""What servers and disks do to a download, each fault from a real server or a real file system."""

import asyncio
import errno
import hashlib
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from skep.errors.provision import BadReference, ChecksumMismatch, DownloadFailed, NoSpace
from skep.errors.runtime import ModelNotFound
from skep.provision.download import REDIRECTS_MAX, Want, download
from skep.provision.files import writing
from skep.provision.model import ensure_model
from skep.spec.model import parse_ref


class Naps:
    """A sleep that only remembers."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []

    async def __call__(self, delay_s: float) -> None:
        self.slept_s.append(delay_s)


def want(server, tmp_path: Path) -> Want:
    return Want(url=server.url, target=tmp_path / "model.gguf", sha256=server.sha256)


async def test_a_server_that_falls_silent_is_asked_again_from_the_byte_it_reached(
    file_server, tmp_path: Path
) -> None:
    file_server.faults = ["stall:300000"]
    path = await download(want(file_server, tmp_path), sleep=Naps(), stall_s_max=0.2)
    assert path.read_bytes() == file_server.body
    assert 0 < int(file_server.ranges[1].removeprefix("bytes=").rstrip("-")) <= 300_000


async def test_a_slow_server_is_waited_for_as_long_as_bytes_come(file_server, tmp_path: Path) -> None:
    file_server.faults = ["slow:20"]
    path = await download(want(file_server, tmp_path), sleep=Naps(), stall_s_max=0.2)
    assert path.read_bytes() == file_server.body
    assert len(file_server.ranges) == 1


@pytest.mark.parametrize("status", ["408", "429", "500", "502", "503", "504"])
async def test_what_may_pass_is_asked_again(file_server, tmp_path: Path, status: str) -> None:
    file_server.faults = [status]
    naps = Naps()
    path = await download(want(file_server, tmp_path), sleep=naps)
    assert path.read_bytes() == file_server.body
    assert naps.slept_s == [1.0]


async def test_retry_after_may_be_a_date_by_the_servers_own_clock(file_server, tmp_path: Path) -> None:
    theirs = datetime(2001, 2, 3, tzinfo=UTC)
    file_server.headers = {
        "Date": format_datetime(theirs, usegmt=True),
        "Retry-After": format_datetime(theirs + timedelta(seconds=7), usegmt=True),
    }
    file_server.faults = ["429"]
    naps = Naps()
    await download(want(file_server, tmp_path), sleep=naps)
    assert naps.slept_s == [7.0]


async def test_a_retry_after_of_hours_is_bounded(file_server, tmp_path: Path) -> None:
    file_server.headers = {"Retry-After": "86400"}
    file_server.faults = ["503"]
    naps = Naps()
    await download(want(file_server, tmp_path), sleep=naps)
    assert naps.slept_s == [30.0]


async def test_a_length_that_promises_more_than_comes_is_settled_by_asking_for_the_rest(
    file_server, tmp_path: Path
) -> None:
    file_server.faults = ["longer:100"]
    path = await download(want(file_server, tmp_path), sleep=Naps())
    assert path.read_bytes() == file_server.body
    assert [bool(one) for one in file_server.ranges] == [False, True]


async def test_a_length_that_promises_less_than_comes_is_caught_by_the_checksum(
    file_server, tmp_path: Path
) -> None:
    file_server.faults = ["shorter:100"]
    with pytest.raises(ChecksumMismatch):
        await download(want(file_server, tmp_path), sleep=Naps())
    assert not (tmp_path / "model.gguf").exists()


async def test_a_file_without_a_length_is_taken_whole(file_server, tmp_path: Path) -> None:
    file_server.faults = ["chunked"]
    path = await download(want(file_server, tmp_path), sleep=Naps())
    assert path.read_bytes() == file_server.body


async def test_a_redirect_is_followed_and_the_bytes_are_resumed_through_it(
    file_server, tmp_path: Path
) -> None:
    file_server.faults = ["redirect", "cut:200000", "redirect"]
    path = await download(want(file_server, tmp_path), sleep=Naps())
    assert path.read_bytes() == file_server.body


async def test_a_redirect_away_from_https_is_refused(file_server, tmp_path: Path) -> None:
    file_server.location = "http://example.org/model.gguf"
    file_server.faults = ["redirect"]
    with pytest.raises(BadReference, match="not https"):
        await download(want(file_server, tmp_path), sleep=Naps())
    assert not list(tmp_path.glob("*.gguf"))


async def test_a_circle_of_redirects_ends(file_server, tmp_path: Path) -> None:
    file_server.faults = ["redirect"] * 50
    with pytest.raises(DownloadFailed, match="redirects"):
        await download(want(file_server, tmp_path), sleep=Naps())
    assert len(file_server.ranges) == REDIRECTS_MAX


ASKER = """
import asyncio, sys
from pathlib import Path
from skep.provision.download import Want, download
url, target, digest = sys.argv[1:]
told = set()
def tell(one):
    if one.step not in told:
        told.add(one.step)
        print(one.step, flush=True)
asyncio.run(download(Want(url=url, target=Path(target), sha256=digest), on_progress=tell))
"""


async def test_two_processes_at_once_download_once(file_server, tmp_path: Path) -> None:
    file_server.faults = ["gate:100000"]
    argv = [
        sys.executable, "-c", ASKER, file_server.url, str(tmp_path / "model.gguf"), file_server.sha256,
    ]  # fmt: skip
    first = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    assert first.stdout is not None
    assert await first.stdout.readline() == b"download\n"
    second = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    assert second.stdout is not None
    assert await second.stdout.readline() == b"wait\n"
    file_server.released.set()
    rest = [(await one.communicate())[0] for one in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    assert rest == [b"", b""], "the second one found the file"
    assert len(file_server.ranges) == 1
    assert (tmp_path / "model.gguf").read_bytes() == file_server.body


async def test_a_process_killed_in_mid_download_leaves_bytes_that_the_next_one_goes_on_from(
    file_server, tmp_path: Path
) -> None:
    file_server.faults = ["stall:400000"]
    argv = [
        sys.executable, "-c", ASKER, file_server.url, str(tmp_path / "model.gguf"), file_server.sha256,
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.DEVNULL)
    part = tmp_path / "model.gguf.part"
    async with asyncio.timeout(30):
        while not (part.exists() and part.stat().st_size):
            await asyncio.sleep(0.01)
    process.kill()
    await process.wait()
    path = await download(want(file_server, tmp_path), sleep=Naps())
    assert path.read_bytes() == file_server.body
    assert file_server.ranges[-1].startswith("bytes=")


def mounted(folder: Path, size: str) -> bool:
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False, capture_output=True
    )
    return done.returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 512 KiB: half of what the server has."""
    folder = tmp_path / "disk"
    if not mounted(folder, "512k"):
        pytest.skip("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.root
async def test_a_disk_that_is_too_small_is_told_before_a_byte_is_written(
    file_server, small_disk: Path
) -> None:
    with pytest.raises(NoSpace) as raised:
        await download(want(file_server, small_disk))
    assert raised.value.need_bytes == len(file_server.body)
    assert raised.value.free_bytes < len(file_server.body)
    assert not (small_disk / "model.gguf.part").exists()


@pytest.mark.root
async def test_a_disk_that_fills_up_in_mid_download_keeps_what_came_and_goes_on_when_there_is_room(
    file_server, small_disk: Path
) -> None:
    file_server.faults = ["chunked"]  # No length, so nothing could be known beforehand.
    with pytest.raises(NoSpace, match="free some room"):
        await download(want(file_server, small_disk))
    kept = (small_disk / "model.gguf.part").stat().st_size
    assert kept > 0
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    path = await download(want(file_server, small_disk))
    assert path.read_bytes() == file_server.body
    assert file_server.ranges[-1] == f"bytes={kept}-"


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.EACCES, DownloadFailed),
        (errno.EROFS, DownloadFailed),
    ],
)
def test_what_a_disk_refuses_is_told_by_its_cause(number: int, kind: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(kind), writing(tmp_path):
        raise OSError(number, "refused")


async def test_a_local_model_is_held_to_its_checksum_and_hashed_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"right")
    digest = hashlib.sha256(b"right").hexdigest()
    ref = parse_ref(str(path))
    named = type(ref)(kind=ref.kind, text=ref.text, path=ref.path, sha256=digest)
    root = tmp_path / "models"
    assert await ensure_model(named, root=root) == path
    assert await ensure_model(named, root=root) == path
    path.write_bytes(b"wrong!")
    with pytest.raises(ChecksumMismatch, match="not"):
        await ensure_model(named, root=root)
    path.unlink()
    with pytest.raises(ModelNotFound):
        await ensure_model(named, root=root)
