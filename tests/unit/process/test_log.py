import asyncio
import os
from pathlib import Path

from skep.process import log
from skep.process.child import spawn


def test_the_tail_is_the_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    assert log.tail(path, 5) == []
    path.write_bytes(b"a\nb\n\xffc\n")
    assert log.tail(path, 2) == ["b", "\N{REPLACEMENT CHARACTER}c"]


def test_a_log_is_for_its_owner_only(tmp_path: Path) -> None:
    os.close(log.open_for_append(tmp_path / "deep" / "x.log"))
    assert (tmp_path / "deep" / "x.log").stat().st_mode & 0o777 == 0o600


async def test_a_log_that_grew_too_large_is_cut_while_the_child_writes_on(
    python, tmp_path: Path, until_async
) -> None:
    code = "import os, time\nfor n in range(200): os.write(1, b'%06d\\n' % n)\nopen('up', 'w').close()\n"
    code += "while not os.path.exists('go'): time.sleep(0.01)\nos.write(1, b'after\\n')"
    path = tmp_path / "child.log"
    async with await spawn(python(code)) as child:
        await until_async((tmp_path / "up").exists)
        assert not log.bound(path, 1400)
        assert log.bound(path, 1000)
        assert path.with_suffix(".log.1").stat().st_size == 250
        (tmp_path / "go").touch()
        await child.wait()
    assert path.read_text() == "after\n"
    assert not log.bound(tmp_path / "missing.log")


async def test_following_a_log_survives_its_being_cut(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("old\nlast\n")
    seen: asyncio.Queue[str] = asyncio.Queue()

    async def read() -> None:
        async for line in log.follow(path, lines=1):
            seen.put_nowait(line)

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        reader = tasks.create_task(read())
        assert await seen.get() == "last"
        with path.open("a") as file:
            file.write("new\nhal")
            file.flush()
            assert await seen.get() == "new"
            file.write("f\n")
        assert await seen.get() == "half"
        path.write_text("c\n")
        assert await seen.get() == "c"
        reader.cancel()
