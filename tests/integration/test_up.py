"""`skep up`, as a person uses it: started, asked, hurt and stopped, with real processes throughout."""

import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import psutil
import pytest

SKEP = Path(sys.executable).with_name("skep")
READY_S_MAX, STOP_S_MAX = 60.0, 5.0
QUESTION, ANSWER = "what color is the sky?", "the sky is blue."


class Up:
    """A running `skep up`."""

    def __init__(self, home: Path, *argv: str) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [SKEP, "up", "--port", "0", "--quiet", *argv],
            env={**os.environ, "SKEP_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        timer = threading.Timer(READY_S_MAX, self.process.kill)
        timer.start()
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        timer.cancel()
        timer.join()
        assert self.url, self.process.communicate()[1]

    @functools.cached_property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key="none", max_retries=0, timeout=30)

    def mine(self) -> list[psutil.Process]:
        """Return every process that was started with this home, whoever its parent is."""
        found = []
        for process in psutil.process_iter():
            try:
                if (
                    process.environ().get("SKEP_HOME") == str(self.home)
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def workers(self) -> list[psutil.Process]:
        return [process for process in self.mine() if "--worker-id" in process.cmdline()]

    def handoffs(self) -> list[Path]:
        return list(self.home.rglob("engines/*.json"))

    def close(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
        for process in self.mine():
            process.kill()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(*argv: str) -> Up:
        started.append(Up(tmp_path / f"home-{len(started)}", *argv))
        return started[-1]

    yield start
    for each in started:
        each.close()


def until(condition: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def ask(fleet: Up, model: str, question: str = QUESTION, **more) -> str:
    answer = fleet.client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], temperature=0, **more
    )
    return answer.choices[0].message.content or ""


def streamed(fleet: Up, model: str, question: str = QUESTION) -> str:
    chunks = fleet.client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], temperature=0, stream=True
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_signal_stops_everything_within_its_time(up, number: signal.Signals) -> None:
    fleet = up("--backend", "fake", "--replicas", "2")
    assert len(fleet.workers()) == 2
    fleet.process.send_signal(number)
    fleet.process.wait(STOP_S_MAX)
    assert until(lambda: not fleet.mine(), 1.0), fleet.mine()
    assert fleet.handoffs() == []


def test_sigkill_of_skep_up_leaves_no_process_and_no_handoff(up) -> None:
    fleet = up("--backend", "fake", "--replicas", "2")
    assert fleet.handoffs()
    fleet.process.kill()
    fleet.process.wait()
    assert until(lambda: not fleet.mine(), 8.0), fleet.mine()
    assert fleet.handoffs() == []


def test_models_without_a_library_are_served_by_the_fake(up) -> None:
    fleet = up("--backend", "fake")
    assert [model.id for model in fleet.client.models.list()] == ["demo"]
    assert ask(fleet, "demo", max_tokens=8)


def test_an_unknown_model_is_a_404_that_the_client_understands(up) -> None:
    fleet = up("--backend", "fake")
    with pytest.raises(openai.NotFoundError) as raised:
        ask(fleet, "nothing")
    assert raised.value.body["code"] == "model_not_found"


@pytest.mark.llama
def test_the_tiny_model_answers_eight_clients_rightly_streamed_and_not(up) -> None:
    fleet = up()
    assert ask(fleet, "tiny") == ANSWER
    assert streamed(fleet, "tiny") == ANSWER
    with ThreadPoolExecutor(8) as pool:
        plain = list(pool.map(lambda _: ask(fleet, "tiny"), range(8)))
        flowing = list(pool.map(lambda _: streamed(fleet, "tiny"), range(8)))
    assert set(plain) == set(flowing) == {ANSWER}


@pytest.mark.llama
def test_two_models_are_served_by_name(up) -> None:
    from skep.runtime.models import TINY, TINY_Q8

    fleet = up(f"one={TINY}", f"two={TINY_Q8}")
    assert sorted(model.id for model in fleet.client.models.list()) == ["one", "two"]
    assert ask(fleet, "one") == ask(fleet, "two") == ANSWER


def test_sigkill_of_a_worker_in_a_stream_is_told_in_band_and_the_next_request_works(up) -> None:
    fleet = up("--backend", "fake", "fake:slow?token_delay_ms=20")
    import urllib.request

    body = {
        "model": "slow",
        "messages": [{"role": "user", "content": "go on"}],
        "stream": True,
        "max_tokens": 1000,
    }
    request = urllib.request.Request(
        f"{fleet.url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        lines = [answer.readline() for _ in range(6)]
        fleet.workers()[0].kill()
        try:
            while line := answer.readline():
                lines.append(line)
        except OSError:
            pass
    text = b"".join(lines).decode()
    assert '"error"' in text
    assert "[DONE]" not in text

    def works() -> bool:
        try:
            return bool(ask(fleet, "slow", max_tokens=2))
        except openai.APIError:
            return False

    assert until(works, 20.0)


def run_up(tmp_path: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SKEP, "up", "--quiet", *argv],
        env={**os.environ, "SKEP_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def port_in_use() -> Generator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.mark.parametrize(
    "broken", ["missing", "folder", "empty", "wrong-magic", "truncated-data", "truncated-header"]
)
def test_a_bad_model_file_is_one_clear_line_and_exit_1(tmp_path: Path, broken: str) -> None:
    from skep.runtime.models import BROKEN

    path = {"missing": tmp_path / "none.gguf", "folder": tmp_path}.get(broken) or BROKEN[broken]
    done = run_up(tmp_path, "--port", "0", str(path))
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(rf"skep: {re.escape(str(path))}\b.*\n", done.stderr), done.stderr


def test_a_port_in_use_is_one_clear_line_and_exit_1(tmp_path: Path, port_in_use: int) -> None:
    done = run_up(tmp_path, "--port", str(port_in_use), "--backend", "fake")
    assert done.returncode == 1
    assert done.stderr == (
        f"skep: port {port_in_use} on 127.0.0.1 is in use: stop the program that holds it, or choose another port\n"
    )


def test_chat_asks_once_through_the_gateway(up) -> None:
    fleet = up("--backend", "fake", "fake:parrot?text=hello+there")
    done = subprocess.run(
        [SKEP, "chat", "--url", fleet.url, "-m", "hi", "--max-tokens", "8"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.strip()
