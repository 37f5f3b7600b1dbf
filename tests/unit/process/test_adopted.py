import os
import signal
import subprocess
import sys

import pytest

from skep.errors.process import ProcessGone
from skep.process.adopted import adopt
from skep.process.identity import started_at


@pytest.fixture
def stranger():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


async def test_an_adopted_process_is_watched_and_stopped(stranger) -> None:
    adopted = await adopt(stranger.pid, started_at(stranger.pid))
    assert adopted.is_running
    ended = await adopted.stop(grace_s=5)
    assert (ended.code, ended.signal) == (None, None)
    assert str(ended) == "an unknown exit"
    assert stranger.wait(5) == -signal.SIGTERM


async def test_the_end_of_an_adopted_process_is_seen(stranger) -> None:
    adopted = await adopt(stranger.pid, started_at(stranger.pid))
    os.kill(stranger.pid, signal.SIGKILL)
    assert await adopted.wait() is not None
    assert not adopted.is_running


async def test_a_pid_that_belongs_to_another_by_now_is_not_touched(stranger) -> None:
    with pytest.raises(ProcessGone, match="another"):
        await adopt(stranger.pid, started_at(stranger.pid) - 1)
    assert stranger.poll() is None


async def test_a_process_that_is_gone_cannot_be_adopted(stranger) -> None:
    born = started_at(stranger.pid)
    stranger.kill()
    os.waitid(os.P_PID, stranger.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ProcessGone):
        await adopt(stranger.pid, born)  # A zombie still.
    stranger.wait()
    with pytest.raises(ProcessGone):
        await adopt(stranger.pid, born)


async def test_a_process_that_leads_no_group_is_none_of_ours() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        try:
            with pytest.raises(ProcessGone, match="group"):
                await adopt(process.pid, started_at(process.pid))
            assert process.poll() is None
        finally:
            process.kill()
