"""A hive and a queen that comes and goes: real processes of both."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def admin_port() -> int:
    return free_port()


@contextmanager
def queen(admin_port: int, folder, *more: str):
    read, write = os.pipe()
    with (folder / f"queen-{time.monotonic_ns()}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "skep.cli.main", "queen", "--bind", "127.0.0.1:0", "--admin-bind",
             f"127.0.0.1:{admin_port}", "--store", f"sqlite:{folder / 'queen.db'}", "--report-fd", str(write), *more],
            pass_fds=[write], stdout=log, stderr=log,
        )  # fmt: skip
    os.close(write)
    try:
        with os.fdopen(read) as pipe:
            yield json.loads(pipe.readline())
    finally:
        process.kill()
        process.wait()


def nodes(url: str, token: str = "") -> list[dict]:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    with urllib.request.urlopen(
        urllib.request.Request(f"{url}/v2/nodes", headers=headers), timeout=10
    ) as reply:
        return json.load(reply)


def pool_states(url: str) -> list[str]:
    with urllib.request.urlopen(f"{url}/v2/pools", timeout=10) as reply:
        return [one["state"] for one in json.load(reply)]


def models(url: str) -> list[str]:
    with urllib.request.urlopen(f"{url}/v1/models", timeout=10) as reply:
        return [one["id"] for one in json.load(reply)["data"]]


def chat(gateway: str, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    request = urllib.request.Request(
        f"{gateway}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as reply:
        return json.load(reply)["choices"][0]["message"]["content"]


def test_a_queen_that_comes_late_and_goes_away_finds_the_hive_each_time(place, pool_toml, admin_port) -> None:
    place.configure(pool_toml(), queen=f"http://127.0.0.1:{admin_port}")
    hive = place.start()
    before = hive.until_ready()["replicas"][0]
    assert hive.ask("/v2/state")[1]["registered"] is False
    for _ in range(2):
        with queen(admin_port, place.folder) as one:
            place.until(
                lambda url=one["admin"]: [node["node_id"] for node in nodes(url)] == ["node-t"], within_s=30
            )
            place.until(lambda url=one["gateway"]: models(url) == ["demo"])
            assert chat(one["gateway"], "demo")
            assert hive.ask("/v2/state")[1]["registered"] is True
    after = hive.pool()
    assert after["state"] == "ready"
    assert after["replicas"][0]["pid"] == before["pid"], "losing the queen changes nothing that runs"


def test_a_change_of_state_is_pushed_at_once_and_leaving_is_told(place, pool_toml, admin_port) -> None:
    place.configure(pool_toml(), queen=f"http://127.0.0.1:{admin_port}")
    with queen(admin_port, place.folder) as one:
        hive = place.start()
        hive.until_ready()
        place.until(lambda: models(one["gateway"]) == ["demo"])
        hive.ask("/v2/pools/pool-0/drain", {"deadline_ms": 0})
        hive.until_state("offline")
        gone_at = time.monotonic()
        place.until(lambda: pool_states(one["admin"]) == ["offline"])
        assert time.monotonic() - gone_at < 5, "not at the next beat, ten seconds later"
        hive.stop()
        place.until(lambda: all(node["state"] in ("left", "lost") for node in nodes(one["admin"])))


def test_the_token_of_a_protected_queen_is_sent_and_a_wrong_one_is_told(place, pool_toml, admin_port) -> None:
    token = place.folder / "token"
    token.write_text("0123456789abcdef-queen")
    token.chmod(0o600)
    place.configure(pool_toml(), queen=f"http://127.0.0.1:{admin_port}", token_file=str(token))
    with queen(admin_port, place.folder, "--token-file", str(token)) as one:
        hive = place.start()
        place.until(
            lambda: [node["node_id"] for node in nodes(one["admin"], token.read_text())] == ["node-t"]
        )
        hive.stop()
        wrong = place.folder / "wrong"
        wrong.write_text("another-token-altogether")
        wrong.chmod(0o600)
        place.configure(pool_toml(), queen=f"http://127.0.0.1:{admin_port}", token_file=str(wrong))
        second = place.start()
        place.until(lambda: "refuses the registration with 401" in second.log.read_text())
        with pytest.raises(urllib.error.HTTPError):
            nodes(one["admin"])


def test_a_request_for_an_idle_pool_wakes_it(place, pool_toml, admin_port) -> None:
    place.configure(pool_toml(ttl_s=1.0), queen=f"http://127.0.0.1:{admin_port}")
    with queen(admin_port, place.folder) as one:
        hive = place.start()
        hive.until_state("idle")
        assert place.workers() == []
        assert chat(one["gateway"], "demo")
