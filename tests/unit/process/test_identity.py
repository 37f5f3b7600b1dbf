import os
import subprocess
import sys

import pytest

from skep.errors.process import ProcessGone
from skep.process import group
from skep.process.identity import boot_id, is_running, read_stat, started_at


def test_we_are_running() -> None:
    me = read_stat(os.getpid())
    assert me is not None
    assert me.parent == os.getppid()
    assert is_running(os.getpid(), me.started_at)
    assert not is_running(os.getpid(), me.started_at + 1)


def test_a_zombie_is_not_running() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    born = started_at(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert read_stat(child.pid).is_dead
    assert not is_running(child.pid, born)
    child.wait()
    with pytest.raises(ProcessGone):
        started_at(child.pid)


def test_a_command_name_with_parentheses_and_spaces_is_read(tmp_path) -> None:
    program = tmp_path / "a) b (c"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(program), "600"])
    try:
        assert read_stat(child.pid).parent == os.getpid()
    finally:
        child.kill()
        child.wait()


def test_a_boot_has_one_id() -> None:
    assert boot_id() == boot_id()
    assert len(boot_id()) == 36


def test_marked_processes_are_found_wherever_they_hid() -> None:
    code = "import os, time; os.setsid() if os.fork() == 0 else None; os.write(1, b'up\\n'); time.sleep(600)"
    env = dict(os.environ, SKEP_TEST_MARK="m-4711")
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE) as child:
        assert [child.stdout.readline() for _ in range(2)] == [b"up\n", b"up\n"]
        found = group.marked("SKEP_TEST_MARK", "m-4711")
        assert len(found) == 2
        assert group.marked("SKEP_TEST_MARK", "m-471") == []
        assert group.kill_each(found) == 2
    assert group.kill_each(found[:1]) == 0, "what is gone takes no harm"
