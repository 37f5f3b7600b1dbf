import asyncio
from pathlib import Path

import pytest

from skep.errors.process import ReportMalformed
from skep.process.child import spawn
from skep.process.report import LINE_BYTES_MAX, ReportPipe


async def test_lines_come_as_they_are_written_and_end_with_the_child(python) -> None:
    code = "import os, sys; fd = int(sys.argv[1]); os.write(fd, b'one\\ntw'); os.write(fd, b'o\\n\\nthr'); os.write(fd, b'ee')"
    async with (
        ReportPipe.open() as pipe,
        await spawn(python(code, str(pipe.write_fd), pass_fds=[pipe.write_fd])) as child,
    ):
        pipe.close_write()
        assert [line async for line in pipe.lines()] == [b"one", b"two", b"three"]
        await child.wait()


async def test_the_death_of_the_child_ends_the_lines(python) -> None:
    async with (
        ReportPipe.open() as pipe,
        await spawn(python("import time; time.sleep(600)", pass_fds=[pipe.write_fd])) as child,
    ):
        pipe.close_write()
        child.kill()
        async with asyncio.timeout(5):
            assert [line async for line in pipe.lines()] == []


async def test_an_endless_line_is_refused_not_kept(python) -> None:
    code = f"import os, sys\nfor _ in range(3): os.write(int(sys.argv[1]), b'x' * {LINE_BYTES_MAX})"
    async with (
        ReportPipe.open() as pipe,
        await spawn(python(code, str(pipe.write_fd), pass_fds=[pipe.write_fd])),
    ):
        pipe.close_write()
        with pytest.raises(ReportMalformed):
            [line async for line in pipe.lines()]


async def test_a_pipe_leaks_no_descriptor() -> None:
    before = set(Path("/proc/self/fd").iterdir())
    async with ReportPipe.open() as pipe:
        pipe.close_write()
        assert [line async for line in pipe.lines()] == []
    async with ReportPipe.open():
        pass
    await asyncio.sleep(0)
    assert set(Path("/proc/self/fd").iterdir()) == before
