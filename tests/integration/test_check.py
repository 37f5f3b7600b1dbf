"""`skep check` against what serves here: our worker, our gateway, llama.cpp's server in the library, and llama-server."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from skep.runtime.models import TINY

SLOW_FAKE = "fake:demo?token_delay_ms=5"
LEFT_OUT = {"errors.no-key", "backpressure.memory"}
TINY_CONTEXT = 512
LIBRARY_SERVER = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_parallel, params.n_ctx, params.port = sys.argv[1], 2, 1024, int(sys.argv[2])
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
while True:
    time.sleep(60)
"""


def check(*argv: str) -> tuple[int, dict[str, dict]]:
    """Run `skep check … --json`; return its exit code and the findings by clause."""
    done = subprocess.run(
        [sys.executable, "-m", "skep.cli.main", "check", *argv, "--json", "--out", ""],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode in {0, 1}, done.stderr
    return done.returncode, {one["clause"]: one for one in json.loads(done.stdout)["findings"]}


def broken(findings: dict[str, dict]) -> dict[str, str]:
    return {name: one["detail"] for name, one in findings.items() if one["verdict"] == "FAIL"}


def unseen(findings: dict[str, dict]) -> set[str]:
    return {
        name
        for name, one in findings.items()
        if one["verdict"] in {"UNSUPPORTED", "NOT-OBSERVABLE"} and one["area"] != "lifecycle"
    } - LEFT_OUT


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def served(argv: list[str], port: int, log: Path) -> Iterator[str]:
    """Yield the URL of a server that was started by `argv`, when it is ready."""
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output, subprocess.Popen(argv, stdout=output, stderr=output) as child:
        try:
            deadline = time.monotonic() + 60
            while not is_well(url):
                assert child.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield url
        finally:
            child.terminate()


def is_well(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as reply:
            return reply.status == 200 and b"loading" not in reply.read()
    except OSError:
        return False


def worker(port: int, model: str, *more: str) -> list[str]:
    argv = ["worker", "--model", model, "--port", str(port), "--slots", "2", "--served-name", "m", *more]
    return [sys.executable, "-m", "skep.cli.main", *argv]


QUICK = ("endpoints", "stream", "truncation", "errors", "cancel")


@pytest.mark.timeout(300)
def test_our_worker_keeps_every_clause_that_can_be_seen(tmp_path: Path) -> None:
    port = free_port()
    argv = worker(port, SLOW_FAKE, "--backend", "fake", "--context", "8192")
    with served(argv, port, tmp_path / "log") as url:
        code, findings = check(url, *(f"--only={one}" for one in QUICK))
    assert broken(findings) == {}
    assert code == 0
    assert unseen(findings) <= {"endpoints.json-mode", "endpoints.tools", "errors.huge-body"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_our_worker_keeps_what_floods_and_stalls_show_as_well(tmp_path: Path) -> None:
    port = free_port()
    argv = worker(port, SLOW_FAKE, "--backend", "fake", "--context", "8192")
    with served(argv, port, tmp_path / "log") as url:
        code, findings = check(url, "--chaos")
    assert broken(findings) == {}
    assert code == 0
    assert unseen(findings) <= {"endpoints.json-mode", "endpoints.tools", "limits.full-is-told"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_our_worker_begins_and_ends_as_it_should(tmp_path: Path) -> None:
    argv = " ".join(worker(0, SLOW_FAKE, "--backend", "fake")).replace("--port 0", "--port {port}")
    _, findings = check("--command", argv, "--only=lifecycle", "--only=backpressure")
    assert broken(findings) == {}
    assert {one["verdict"] for one in findings.values()} == {"PASS"}


@pytest.mark.slow
@pytest.mark.llama
@pytest.mark.timeout(300)
def test_our_worker_on_llama_cpp_keeps_every_clause(tmp_path: Path) -> None:
    port = free_port()
    argv = worker(port, str(TINY), "--threads", "1", "--context", str(TINY_CONTEXT))
    with served(argv, port, tmp_path / "log") as url:
        code, findings = check(url, "--chaos")
    assert broken(findings) == {}
    assert code == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_our_gateway_keeps_every_clause(start_queen, start_hive, tmp_path: Path) -> None:
    queen = start_queen()
    pool = f'[[pool]]\nid = "p"\nmodel = "{SLOW_FAKE}"\nbackend = "fake"\ndevices = "cpu"\nslots = 2\ncontext = 8192\n'
    start_hive("n", queen.admin, pool)
    deadline = time.monotonic() + 30
    while not listed(queen.gateway):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    code, findings = check(queen.gateway, "--chaos")
    assert broken(findings) == {}
    assert code == 0


def listed(url: str) -> list[str]:
    with urllib.request.urlopen(f"{url}/v1/models", timeout=10) as reply:
        return [one["id"] for one in json.load(reply)["data"]]


@pytest.mark.slow
@pytest.mark.llama
@pytest.mark.timeout(300)
def test_the_librarys_own_server_is_told_apart(tmp_path: Path) -> None:
    port = free_port()
    argv = [sys.executable, "-c", LIBRARY_SERVER, str(TINY), str(port)]
    with served(argv, port, tmp_path / "log") as url:
        code, findings = check(url, "--skip=limits")
    assert code == 1, "what it does with bad requests is known"
    assert {name.partition(".")[0] for name in broken(findings)} <= {"errors"}


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("SKEP_LLAMA_SERVER"), reason="SKEP_LLAMA_SERVER names no program")
@pytest.mark.timeout(300)
def test_llama_server_is_told_apart(tmp_path: Path) -> None:
    port = free_port()
    argv = [os.environ["SKEP_LLAMA_SERVER"], "--model", str(TINY), "--port", str(port), "--parallel", "2"]
    with served([*argv, "--ctx-size", "1024", "--threads", "1"], port, tmp_path / "log") as url:
        code, findings = check(url, "--skip=limits")
    assert code == 1, "what it does with bad requests is known"
    assert {name.partition(".")[0] for name in broken(findings)} <= {"errors"}
