"""What an owner reads while a worker starts."""

import os

from skep.wire.start import Failed, Loading, Ready, Starting, decode
from skep.worker.report import StartReporter


def lines(read_fd):
    with os.fdopen(read_fd, "rb") as file:
        return [decode(line) for line in file]


def test_the_story_of_a_start():
    read_fd, write_fd = os.pipe()
    reporter = StartReporter(write_fd)
    reporter.starting("n")
    for step in range(101):
        reporter.loading(step / 100)
    reporter.ready(80)
    reporter.close()
    told = lines(read_fd)
    assert told[0] == Starting(pid=os.getpid(), nonce="n")
    assert told[-1] == Ready(port=80)
    progress = [one.progress for one in told if isinstance(one, Loading)]
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    assert len(progress) <= 52


def test_a_failure_is_told_on_the_pipe_and_on_stderr(capsys):
    read_fd, write_fd = os.pipe()
    StartReporter(write_fd).failed(code="gguf_truncated", message="short", retryable=False)
    failed = Failed(code="gguf_truncated", message="short")
    assert lines(read_fd) == [failed]
    assert decode(capsys.readouterr().err.encode()) == failed


def test_an_owner_that_left_stops_nobody():
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    reporter = StartReporter(write_fd)
    reporter.starting("n")
    reporter.ready(1)
