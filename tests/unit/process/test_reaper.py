import subprocess
import sys

from skep.process import reaper
from skep.process.identity import read_stat

ORPHANS = """
import os, subprocess, sys, time
from skep.process import reaper
assert reaper.become_subreaper()
kept = subprocess.Popen([sys.executable, '-c', 'pass'])
middle = subprocess.Popen([sys.executable, '-c',
    'import subprocess, sys; print(subprocess.Popen([sys.executable, "-c", "pass"]).pid, flush=True)'],
    stdout=subprocess.PIPE)
orphan = int(middle.stdout.readline())
middle.wait()
until = time.monotonic() + 10
reaped = []
while orphan not in reaped:
    assert time.monotonic() < until
    reaped += reaper.reap_zombies(except_for={kept.pid})
    time.sleep(0.01)
assert kept.pid not in reaped
assert kept.wait() == 0
"""


def test_orphans_are_reaped_and_children_of_others_are_left() -> None:
    subprocess.run([sys.executable, "-c", ORPHANS], check=True, timeout=60)


def test_a_marked_process_is_killed_by_its_mark() -> None:
    with subprocess.Popen(["sleep", "600"], env={"SKEP_TEST_MARK": "reap-me"}) as child:
        assert reaper.kill_marked("SKEP_TEST_MARK", "reap-me") == 1
        child.wait(5)
        assert read_stat(child.pid) is None
    assert reaper.kill_marked("SKEP_TEST_MARK", "reap-me") == 0
