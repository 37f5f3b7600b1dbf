"""The pipe on which a child tells its owner how it gets on: lines, bounded, until it closes."""

import asyncio
import os
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from skep.errors.process import ReportMalformed

LINE_BYTES_MAX = 64 * 1024


class ReportPipe:
    """Made by the owner; `write_fd` goes to the child, and `close_write` follows the spawn.

    The reader holds at most two lines; a child that writes faster waits in its write.
    """

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd, self.write_fd = read_fd, write_fd
        self._transport: asyncio.ReadTransport | None = None

    @classmethod
    def open(cls) -> Self:
        """Return a new pipe; neither end is inherited unless passed."""
        return cls(*os.pipe())

    def close_write(self) -> None:
        """Close our copy of the child's end, so that the child's death is the end of the lines."""
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield whole lines without their ends until the child closes. Raises: ReportMalformed (a line too long)."""
        reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
        file = os.fdopen(self._read_fd, "rb", buffering=0)
        self._read_fd = -1
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), file
        )
        try:
            while line := await reader.readline():
                if line.strip():
                    yield line.rstrip(b"\n")
        except ValueError as error:
            raise ReportMalformed(
                f"a report line is longer than {LINE_BYTES_MAX} bytes", reason=str(error)
            ) from error
        finally:
            self._transport.close()

    def close(self) -> None:
        """Close both ends; closing twice is fine."""
        self.close_write()
        if self._read_fd >= 0:
            os.close(self._read_fd)
            self._read_fd = -1
        if self._transport is not None:
            self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        await asyncio.sleep(0)  # A closed transport lets go of its descriptor in the loop's next turn.
