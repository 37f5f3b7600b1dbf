"""Files sent to real SSH servers: whole, and no more under way than asked for, by a server that takes it or one that does not."""

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from skep.errors.rollout import ArtifactMissing
from skep.rollout import sending
from skep.testkit.hosts.loopback import LoopbackLab
from skep.testkit.hosts.netns import NetnsLab, missing

AHEAD_BYTES = 512 << 10
TAKES = "sha256sum"


def connect(lab: NetnsLab | LoopbackLab, host: str, **more: Any) -> Any:
    """Return the connection to a lab's host, to be entered."""
    key, known = str(lab.identity), str(lab.known_hosts)
    return asyncssh.connect(host, known_hosts=known, client_keys=[key], config=None, **more)


@pytest.fixture
async def near(tmp_path: Path) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """A connection to the system's real sshd."""
    async with (
        NetnsLab(tmp_path / "lab", hosts=1) as lab,
        connect(lab, lab.hosts[0].address, username="root") as connection,
    ):
        yield connection


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """A connection to a server that is not OpenSSH: it lets more be sent only when half of its window was taken."""
    async with (
        LoopbackLab(tmp_path / "lab", hosts=1) as lab,
        connect(lab, "127.0.0.1", port=lab.hosts[0].port, username="lab") as connection,
    ):
        yield connection


async def sent(
    connection: asyncssh.SSHClientConnection, file: Path, ahead_bytes: int | None
) -> tuple[str, int]:
    """Send a file to a command that takes its sum. Returns the sum, and the widest window that was seen meanwhile."""
    async with connection.create_process(TAKES, encoding=None) as process:
        widest = 0

        async def look() -> None:
            nonlocal widest
            while True:
                widest = max(widest, process.channel._send_window)
                await asyncio.sleep(0)

        looking = asyncio.create_task(look())
        try:
            await sending.say(process, file, ahead_bytes=ahead_bytes)
        finally:
            looking.cancel()
            await asyncio.wait([looking])
        process.stdin.write_eof()
        told = await process.stdout.read()
        await process.wait_closed()
    return told.decode().split()[0], widest


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * (5_000_000 // 256))
    return path


def sum_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.root
@pytest.mark.skipif(bool(missing()), reason=missing() or "can run")
async def test_to_openssh_no_more_is_under_way_than_asked_for(
    near: asyncssh.SSHClientConnection, file: Path
) -> None:
    told, widest = await sent(near, file, AHEAD_BYTES)
    assert told == sum_of(file)
    assert widest <= AHEAD_BYTES
    assert (await sent(near, file, None))[1] > AHEAD_BYTES, "by itself the server would take more"


@pytest.mark.root
@pytest.mark.skipif(bool(missing()), reason=missing() or "can run")
async def test_a_large_file_is_held_back_at_its_beginning_only(
    near: asyncssh.SSHClientConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "HELD_BYTES", 2 << 20)
    large = tmp_path / "large"
    large.write_bytes(b"x" * (8 << 20))
    told, widest = await sent(near, large, AHEAD_BYTES)
    assert told == sum_of(large)
    assert widest > AHEAD_BYTES


@pytest.mark.root
@pytest.mark.skipif(bool(missing()), reason=missing() or "can run")
async def test_a_near_openssh_is_known_by_its_name_and_its_round_trip(
    near: asyncssh.SSHClientConnection,
) -> None:
    ahead = sending.bytes_ahead(near)
    assert ahead is not None
    assert ahead >= AHEAD_BYTES


async def test_a_server_that_waits_for_more_than_is_let_go_gets_it(
    other: asyncssh.SSHClientConnection, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "PATIENCE_S", 0.1)
    told, widest = await sent(other, file, 128 << 10)
    assert told == sum_of(file)
    assert widest > 128 << 10, "the brake was let go"


async def test_any_other_server_is_sent_as_much_as_it_allows(other: asyncssh.SSHClientConnection) -> None:
    assert sending.bytes_ahead(other) is None


async def test_the_window_is_whole_again_after_a_file_that_cannot_be_read(
    other: asyncssh.SSHClientConnection, tmp_path: Path
) -> None:
    async with other.create_process(TAKES, encoding=None) as process:
        before = process.channel._send_window
        with pytest.raises(ArtifactMissing, match="cannot be read"):
            await sending.say(process, tmp_path / "none", ahead_bytes=128 << 10)
        assert process.channel._send_window == before
        process.stdin.write_eof()
        assert await process.stdout.read(), "the command came to its end"
        await process.wait_closed()


@pytest.mark.parametrize(("round_trip_s", "ahead"), [(0.0, 512 << 10), (0.001, (512 << 10) + 100_000)])
def test_the_farther_a_host_the_more_is_under_way(round_trip_s: float, ahead: int) -> None:
    class Socket:
        def getsockopt(self, *_: int) -> bytes:
            return bytes(148) + int(round_trip_s * 1e6).to_bytes(4, sys.byteorder)

    class Connection:
        def get_extra_info(self, name: str) -> object:
            return {"server_version": "SSH-2.0-OpenSSH_9.2p1", "socket": Socket()}[name]

    assert sending.bytes_ahead(Connection()) == ahead
