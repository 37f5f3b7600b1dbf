"""What is said to a script while it runs: lines, and files.

An OpenSSH server lets us send 2 MiB before it has passed on the first byte, and makes its buffer for them anew with each
packet that it adds: of a 5 MB program that costs a fresh sshd several times the work of the transfer itself. So on a near
network less is under way: what keeps the line full, and no more. Of a large file the cost is small, and a relay that
is nearer than the host would slow it down, so that holds for the beginning of a file only.
"""

import asyncio
import contextlib
import socket
import sys
from pathlib import Path
from typing import Any

from skep.errors.rollout import ArtifactMissing

BLOCK_BYTES = 1 << 20  # Of a file that is being sent: so much of it is in memory, for each host.
AHEAD_BYTES_MIN = 512 << 10  # sshd says that it passed something on only after three packets of 32 KiB.
HELD_BYTES = 8 << 20
LINE_BYTES_PER_S = 100_000_000  # A line that must not wait for us: nearly a gigabit a second.
PATIENCE_S = 1.0
_MIN_RTT_AT = 148  # In Linux's `struct tcp_info` since 4.6: microseconds, of 32 bits.


async def say(process: Any, what: str | Path, *, ahead_bytes: int | None) -> None:
    """Write a line, or a file's bytes as fast as they are taken. A script that ended meanwhile takes nothing more.

    `ahead_bytes` bounds what is under way to the host; None: as much as it allows. Raises: ArtifactMissing.
    """
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        if isinstance(what, str):
            process.stdin.write(f"{what}\n".encode())
            return
        brake = _Brake(process.channel, ahead_bytes)
        try:
            with _opened(what) as source:
                while block := await asyncio.to_thread(source.read, BLOCK_BYTES):
                    if source.tell() > HELD_BYTES:
                        brake.release()
                    process.stdin.write(block)
                    await brake.drained(process.stdin)
        finally:
            brake.release()


def _opened(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as error:
        raise ArtifactMissing(f"{path} cannot be read: {error.strerror}", path=str(path)) from error


class _Brake:
    """Holds back a part of the window that the host opened; asyncssh keeps the window to itself.

    A server that waits for more than we let go would wait for ever, so the brake is let go after `PATIENCE_S`.
    """

    def __init__(self, channel: Any, ahead_bytes: int | None) -> None:
        self._channel, self._held_bytes = channel, 0
        window = getattr(channel, "_send_window", None)
        if ahead_bytes is not None and isinstance(window, int) and window > ahead_bytes:
            self._held_bytes = window - ahead_bytes
            channel._send_window = ahead_bytes  # noqa: SLF001 - there is no other way to say it

    async def drained(self, stdin: Any) -> None:
        """Wait until what was written is under way."""
        try:
            async with asyncio.timeout(PATIENCE_S if self._held_bytes else None):
                await stdin.drain()
        except TimeoutError:
            self.release()
            await stdin.drain()

    def release(self) -> None:
        """Let the host have its whole window; twice is fine."""
        held, self._held_bytes = self._held_bytes, 0
        if held:
            self._channel._send_window += held  # noqa: SLF001 - see above
            with contextlib.suppress(OSError):  # Closed meanwhile: whoever reads its end tells why.
                self._channel._flush_send_buf()  # noqa: SLF001 - see above


def bytes_ahead(connection: Any) -> int | None:
    """Return how much is to be under way on a connection of our own, or None: as much as the host allows.

    Known for OpenSSH, whose ways these are, on Linux, where the kernel tells how far the host is.
    """
    if "OpenSSH" not in str(connection.get_extra_info("server_version")):
        return None
    round_trip_s = _round_trip_s(connection.get_extra_info("socket"))
    return None if round_trip_s is None else AHEAD_BYTES_MIN + int(round_trip_s * LINE_BYTES_PER_S)


def _round_trip_s(connected: Any) -> float | None:
    """Return the shortest round trip that the kernel saw."""
    if not hasattr(socket, "TCP_INFO") or not hasattr(connected, "getsockopt"):
        return None
    try:
        told = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _MIN_RTT_AT + 4)
    except OSError:  # Not TCP, or closed meanwhile: the sending itself tells that.
        return None
    return int.from_bytes(told[_MIN_RTT_AT:], sys.byteorder) / 1e6 if len(told) > _MIN_RTT_AT else None
