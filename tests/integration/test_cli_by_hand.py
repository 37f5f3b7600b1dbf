"""Commands as somebody at a terminal uses them: a conversation, the doctor, help that lists what there is."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from skep.cli.main import COMMANDS
from skep.testkit import WorkerHarness

SKEP = str(Path(sys.executable).with_name("skep"))
ANSWER_S_MAX = 30.0


class Terminal:
    """A command in a pseudo-terminal; what it says is collected."""

    def __init__(self, *argv: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            argv,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "dumb"},
            start_new_session=True,
        )
        os.close(theirs)
        self._bytes = b""

    @property
    def said(self) -> str:
        return self._bytes.decode(errors="replace")  # Whole: a character may come in two reads.

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def until(self, pattern: str) -> None:
        deadline = time.monotonic() + ANSWER_S_MAX
        while not re.search(pattern, self.said, re.DOTALL):
            assert time.monotonic() < deadline, self.said
            if select.select([self._ours], [], [], 0.2)[0]:
                self._bytes += os.read(self._ours, 65536)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def terminal() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for one in opened:
        one.close()


async def test_a_conversation_takes_turns_and_ends_by_its_command(terminal: list[Terminal]) -> None:
    async with await WorkerHarness.start(
        "fake:parrot?text=hello+there&turn_tokens=4", backend="fake"
    ) as worker:
        talk = Terminal(SKEP, "chat", "--url", worker.base_url, "--max-tokens", "8")
        terminal.append(talk)
        await asyncio_until(talk, r"/quit or Ctrl-D leaves\..*› ")
        for turn in (1, 2):
            talk.type("hi\n")
            await asyncio_until(talk, r"(hi\r\n.+?\r\n› ){%d}" % turn)  # noqa: UP031 - braces belong to the pattern
        talk.type("/quit\n")
        assert talk.process.wait(10) == 0


async def asyncio_until(talk: Terminal, pattern: str) -> None:
    import asyncio

    await asyncio.to_thread(talk.until, pattern)


def test_a_pipe_without_a_question_is_told() -> None:
    done = subprocess.run([SKEP, "chat"], input="", capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "skep: nothing was asked: give -m TEXT, or pipe a question in\n",
    )


@pytest.mark.parametrize("url", ["not a url", "http://127.0.0.1:9/"])
def test_an_address_where_nobody_answers_is_one_line(url: str) -> None:
    done = subprocess.run(
        [SKEP, "chat", "--url", url, "-m", "hi"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in {1, 2}
    assert re.fullmatch(r"skep: .+\n", done.stderr), done.stderr


@pytest.mark.llama
@pytest.mark.parametrize("flags", [[], ["--selftest"]], ids=["look", "selftest"])
def test_the_doctor_tells_library_devices_memory_and_ports(flags: list[str]) -> None:
    done = subprocess.run(
        [SKEP, "doctor", "--json", *flags], capture_output=True, text=True, timeout=110, check=False
    )
    found = json.loads(done.stdout)
    assert {one["area"] for one in found} == {"skep", "library", "devices", "ports", "folders", "tools"}
    assert any("GiB free" in one["details"] for one in found if one["area"] == "devices")
    failed = [one for one in found if one["verdict"] == "fail"]
    assert (done.returncode == 0) == (not failed), failed


def test_help_lists_every_command() -> None:
    done = subprocess.run(
        [SKEP, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert not [name for name in COMMANDS if name not in done.stdout]
