import asyncio
import os
import signal
from pathlib import Path

import pytest
import uvloop

from skep.errors.process import SpawnFailed
from skep.process import group
from skep.process.child import ChildSpec, spawn
from skep.process.identity import is_running, read_stat

SLEEP = "import time; open('up', 'w').close(); time.sleep(600)"
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open('up', 'w').close()
time.sleep(600)
"""
FORKS = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', 'import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)'])
open('pid', 'w').write(str(child.pid))
open('up', 'w').close()
{then}
"""


async def test_a_child_leads_its_own_session_and_group(python, tmp_path: Path) -> None:
    async with await spawn(python("import os; print(os.getpgrp(), os.getsid(0), os.getpid())")) as child:
        ended = await child.wait()
    assert ended.code == 0
    assert (tmp_path / "child.log").read_text().split() == [str(child.pid)] * 3
    assert child.pgid == child.pid


async def test_a_child_that_exits_early_tells_its_code_and_leaves_no_zombie(python) -> None:
    child = await spawn(python("raise SystemExit(3)"))
    ended = await child.wait()
    assert (ended.code, ended.signal, ended.forced) == (3, None, False)
    assert str(ended) == "exit code 3"
    assert read_stat(child.pid) is None, "a zombie was left"
    assert await child.stop() == ended, "stopping what ended is fine"


async def test_a_child_killed_by_a_signal_tells_which(python, tmp_path: Path, until_async) -> None:
    child = await spawn(python(SLEEP))
    await until_async((tmp_path / "up").exists)
    os.kill(child.pid, signal.SIGSEGV)
    ended = await child.wait()
    assert (ended.code, ended.signal) == (None, signal.SIGSEGV)
    assert str(ended) == "signal SIGSEGV"


async def test_stop_ends_a_polite_child_without_force(python, tmp_path: Path, until_async) -> None:
    child = await spawn(python(SLEEP))
    await until_async((tmp_path / "up").exists)
    ended = await child.stop()
    assert (ended.signal, ended.forced) == (signal.SIGTERM, False)
    assert read_stat(child.pid) is None


async def test_a_child_that_ignores_sigterm_is_killed_after_the_grace(python, tmp_path, until_async) -> None:
    child = await spawn(python(STUBBORN))
    await until_async((tmp_path / "up").exists)
    ended = await child.stop(grace_s=0.1)
    assert (ended.signal, ended.forced) == (signal.SIGKILL, True)


async def test_a_stopped_child_hears_the_polite_signal(python, tmp_path: Path, until_async) -> None:
    child = await spawn(python(SLEEP))
    await until_async((tmp_path / "up").exists)
    os.kill(child.pid, signal.SIGSTOP)
    await until_async(lambda: read_stat(child.pid).state == "T")
    ended = await child.stop()
    assert (ended.signal, ended.forced) == (signal.SIGTERM, False)


@pytest.mark.parametrize("then", ["time.sleep(600)", "sys.exit(0)"])
async def test_a_grandchild_that_ignores_sigterm_goes_with_the_group(then, python, tmp_path, is_gone) -> None:
    child = await spawn(python(FORKS.format(then=then)))
    async with asyncio.timeout(10):
        while not (tmp_path / "up").exists():
            await asyncio.sleep(0.01)
    grandchild = int((tmp_path / "pid").read_text())
    await child.stop(grace_s=0.2)
    assert is_gone(grandchild)
    assert group.members(child.pgid) == []


async def test_a_leader_that_dies_takes_its_group_with_it_unasked(
    python, tmp_path, is_gone, until_async
) -> None:
    child = await spawn(python(FORKS.format(then="time.sleep(600)")))
    await until_async((tmp_path / "up").exists)
    grandchild = int((tmp_path / "pid").read_text())
    os.kill(child.pid, signal.SIGKILL)
    await child.wait()
    await until_async(lambda: is_gone(grandchild))


async def test_a_cancel_during_the_grace_kills_at_once(python, tmp_path: Path, until_async) -> None:
    child = await spawn(python(STUBBORN))
    await until_async((tmp_path / "up").exists)
    stopping = asyncio.create_task(child.stop(grace_s=600))
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    async with asyncio.timeout(5):
        assert (await child.wait()).signal == signal.SIGKILL


async def test_second_cancel_still_kills(python, tmp_path: Path, until_async) -> None:
    child = await spawn(python(STUBBORN))
    await until_async((tmp_path / "up").exists)

    async def own() -> None:
        async with child:
            await asyncio.sleep(600)

    owner = asyncio.create_task(own())
    await asyncio.sleep(0)
    owner.cancel()
    await asyncio.sleep(0.05)
    owner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await owner
    async with asyncio.timeout(5):
        assert (await child.wait()).signal == signal.SIGKILL
    assert read_stat(child.pid) is None


async def test_nothing_of_ours_is_open_in_the_child(python, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.set_inheritable(read, True)
    try:
        code = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd')))"
        async with await spawn(python(code, pass_fds=[write])) as child:
            await child.wait()
    finally:
        os.close(read)
        os.close(write)
    seen = eval((tmp_path / "child.log").read_text())
    assert set(seen) - {0, 1, 2, write} == {max(set(seen) - {write})}, "besides the listing's own descriptor"
    assert read not in seen


async def test_owning_children_leaks_no_descriptor(python) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    for _ in range(5):
        async with await spawn(python("pass")) as child:
            await child.wait()
    assert set(Path("/proc/self/fd").iterdir()) == before


@pytest.mark.parametrize(
    "changes",
    [{"argv": ("/no/such/program",)}, {"argv": ("/",)}, {"argv": ("a\0b",)}, {"cwd": Path("/no/such")}],
)
async def test_a_program_that_cannot_be_started_is_a_typed_error(changes: dict, python) -> None:
    spec = python("pass")
    fields = {name: getattr(spec, name) for name in spec.__struct_fields__} | changes
    with pytest.raises(SpawnFailed, match="cannot start"):
        await spawn(ChildSpec(**fields))


async def test_a_log_that_cannot_be_written_is_a_typed_error(python, tmp_path: Path) -> None:
    (tmp_path / "child.log").symlink_to("/etc/passwd")
    with pytest.raises(SpawnFailed, match="log file"):
        await spawn(python("pass"))


async def test_a_released_child_lives_on(python, tmp_path: Path, until_async) -> None:
    child = await spawn(python(SLEEP))
    await until_async((tmp_path / "up").exists)
    child.release()
    assert is_running(child.pid, child.started_at)
    os.kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)


def test_it_works_on_uvloop_too(python) -> None:
    async def main() -> None:
        child = await spawn(python("import sys; sys.exit(7)"))
        assert (await child.wait()).code == 7
        child = await spawn(python("import time; time.sleep(600)"))
        assert (await child.stop()).signal == signal.SIGTERM

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def test_many_children_at_once_are_all_reaped(python) -> None:
    children = [await spawn(python("import time; time.sleep(600)")) for _ in range(20)]
    async with asyncio.TaskGroup() as tasks:
        for child in children:
            tasks.create_task(child.stop(grace_s=2))
    assert all(read_stat(child.pid) is None for child in children)
