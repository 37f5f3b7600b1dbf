import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from skep.errors import InvalidInput
from skep.errors.process import GuardGone
from skep.process.guard import Guard
from skep.process.identity import is_running, started_at

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
OWNER = """
import subprocess, sys, time
from pathlib import Path
from skep.process.guard import Guard
from skep.process.identity import started_at
guard = Guard().start()
child = subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)
guard.watch(child.pid, started_at(child.pid))
guard.file(Path('a file')); guard.folder(Path('folder')); guard.file(Path('never was'))
while not Path('up').exists(): time.sleep(0.01)
print(guard.pid, child.pid, flush=True)
time.sleep(600)
"""
FORKING = """
import signal, subprocess, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, signal.SIG_IGN)
inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)
Path('inner').write_text(str(inner.pid))
Path('up').touch()
time.sleep(600)
"""


@pytest.fixture
def sleeper():
    process = subprocess.Popen(SLEEPER, start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_sigkill_of_the_owner_leaves_nothing(tmp_path: Path, until, is_gone) -> None:
    (tmp_path / "a file").touch()
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "kept").touch()
    code = OWNER.format(child=FORKING)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=tmp_path) as owner:
        guard, child = map(int, owner.stdout.readline().split())
        inner = int((tmp_path / "inner").read_text())
        owner.kill()
    until(lambda: is_gone(guard), within_s=6)
    assert is_gone(child), "the child ignores SIGTERM"
    assert is_gone(inner), "its child left the group"
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "up", "inner"}


def test_a_closed_guard_has_ended_what_it_watched(sleeper) -> None:
    with Guard() as guard:
        guard.watch(sleeper.pid, started_at(sleeper.pid))
    assert sleeper.wait(5) == -signal.SIGTERM


def test_what_has_its_mark_is_ended_though_nobody_owns_it(until, is_gone) -> None:
    orphaning = f"import subprocess; print(subprocess.Popen({SLEEPER!r}, start_new_session=True, stdout=-3, stderr=-3).pid, flush=True)"
    with Guard() as guard:
        guard.mark("SKEP_TEST_MARK", "g-1")
        made = subprocess.run(
            [sys.executable, "-c", orphaning],
            env={**os.environ, "SKEP_TEST_MARK": "g-1"},
            capture_output=True,
            check=True,
        )
        orphan = int(made.stdout)
        assert not is_gone(orphan)
    until(lambda: is_gone(orphan))


def test_what_it_was_told_to_forget_or_another_process_lives_on(sleeper) -> None:
    born = started_at(sleeper.pid)
    with Guard() as guard:
        guard.watch(sleeper.pid, born)
        guard.unwatch(sleeper.pid, born)
    with Guard() as guard:
        guard.watch(sleeper.pid, born - 1)
    assert is_running(sleeper.pid, born)


def test_signals_that_end_others_do_not_end_the_guard(sleeper) -> None:
    with Guard() as guard:
        guard.watch(sleeper.pid, started_at(sleeper.pid))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(guard.pid, number)
    assert sleeper.wait(5) == -signal.SIGTERM


def test_a_guard_that_died_is_told_at_the_next_word(sleeper) -> None:
    guard = Guard().start()
    os.kill(guard.pid, signal.SIGKILL)
    os.waitid(os.P_PID, guard.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(GuardGone):
        guard.watch(sleeper.pid, started_at(sleeper.pid))
    guard.close()
    with pytest.raises(GuardGone):
        guard.file(Path("x"))


def test_a_path_that_would_be_two_lines_is_refused() -> None:
    with Guard() as guard, pytest.raises(InvalidInput):
        guard.file(Path("a\nb"))


def test_a_link_to_a_folder_is_removed_and_its_target_kept(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with Guard() as guard:
        guard.folder(tmp_path / "link")
    assert {path.name for path in tmp_path.iterdir()} == {"target"}
