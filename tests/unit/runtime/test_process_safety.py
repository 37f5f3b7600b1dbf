"""Forks and signals: a child gets a typed error and no hang, and Ctrl-C ends a program that streams."""

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

from skep.errors.runtime import Closed
from skep.runtime import Model
from skep.runtime.fake import FakeBackend

STREAMS = """
from skep.runtime import Model, Token
from skep.runtime.fake import FakeBackend, FakeScript

backend = FakeBackend(FakeScript(token_delay_ms=20))
with Model.load("fake:slow", backend=backend) as model, model.session() as session:
    for event in session.generate("Once", max_tokens=3000):
        if isinstance(event, Token):
            print(event.text, end="", flush=True)
"""


def test_a_forked_child_is_told_that_the_engine_is_not_there() -> None:
    with Model.load("fake:x", backend=FakeBackend()) as model, model.session() as session:
        session.text("before", max_tokens=2)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # Python 3.12 warns of exactly what is tested here.
            child = os.fork()
        if child == 0:
            try:
                session.generate("in the child")
            except Closed:
                session.close()
                os._exit(0)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert session.text("after", max_tokens=2)


def test_ctrl_c_ends_a_program_in_the_middle_of_a_stream() -> None:
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", STREAMS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parent,
    ) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.read(3)
            program.send_signal(signal.SIGINT)
            _, errors = program.communicate(timeout=30)
        finally:
            program.kill()
    assert program.returncode in (-signal.SIGINT, 130)
    assert b"KeyboardInterrupt" in errors
    assert b"ResourceWarning" not in errors
