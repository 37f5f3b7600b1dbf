"""Foreign engines, some of them badly behaved: the hive must see what each is, and leave nothing of it behind."""

import json
import sys
import textwrap
from pathlib import Path

import pytest

SERVER = textwrap.dedent(
    """
    import json, os, signal, subprocess, sys, threading, time
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    port, how = int(sys.argv[1]), sys.argv[2]

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_): pass
        def answer(self, status, body):
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        def do_GET(self):
            if self.path == "/metrics" and how != "no-gauges":
                self.answer(200, b"vllm:num_requests_running 0\\nvllm:num_requests_waiting 0\\n")
            else:
                self.answer(200 if self.path in ("/health", "/v1/models") else 404, {})
        def do_POST(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            mute = how == "mute" or (how == "turns-mute" and os.path.exists(sys.argv[3]))
            self.answer(500, {"error": {"message": "I cannot"}}) if mute else self.answer(200, {"choices": [{"text": "x"}]})

    if how == "exits":
        print("CUDA error: device-side assert triggered", flush=True)
        sys.exit(3)
    if how == "other-port":
        port = 0
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    if how in ("stubborn", "forks"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if how == "forks":
        subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"])
    if how == "escapes":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    if how == "closes":
        def close():
            while not os.path.exists(sys.argv[3]): time.sleep(0.02)
            server.socket.close()
            time.sleep(600)
        threading.Thread(target=close).start()
    server.serve_forever()
    """
)


@pytest.fixture
def engine(place, pool_toml, tmp_path: Path):
    """Configure a pool on a command engine that behaves in a given way."""
    program = tmp_path / "server.py"
    program.write_text(SERVER)
    model = tmp_path / "model.bin"
    model.write_bytes(b"weights")

    def configure(how: str, **pool) -> Path:
        flag = tmp_path / "flag"
        argv = json.dumps([sys.executable, str(program), "{port}", how, str(flag)])
        text = f'[[engine]]\nid = "mine"\nkind = "command"\nargv = {argv}\n'
        place.configure(
            text + pool_toml(model=str(model), engine="mine", backend="llama", **pool), inference_probe=True
        )
        return flag

    return configure


def test_a_command_engine_is_served_and_what_it_cannot_do_is_told(place, engine) -> None:
    engine("well")
    hive = place.start()
    pool = hive.until_ready()
    assert pool["abilities"] == []
    assert pool["engine"] == "mine"
    (handoff,) = place.handoffs().values()
    assert handoff["token"] == ""
    hive.ask("/v2/pools/pool-0/drain", {"deadline_ms": 5000})
    drained = hive.until_state("offline")
    assert drained["last_drain"]["force_stopped"] is False
    assert place.workers() == []


@pytest.mark.parametrize("how", ["stubborn", "forks", "escapes"])
def test_an_engine_that_will_not_go_goes_with_all_that_it_started(place, engine, how: str) -> None:
    engine(how)
    hive = place.start()
    hive.until_ready()
    hive.ask("/v2/pools/pool-0/drain", {"deadline_ms": 0})
    hive.until_state("offline")
    assert place.workers() == []


@pytest.mark.parametrize("how", ["stubborn", "forks", "escapes"])
def test_a_hive_ends_within_five_seconds_whatever_its_engines_do(place, engine, how: str) -> None:
    engine(how)
    hive = place.start()
    hive.until_ready()
    assert hive.stop(within_s=5) == 0
    assert place.workers() == []


def test_an_engine_that_is_healthy_but_mute_never_becomes_ready(place, engine) -> None:
    engine("mute")
    hive = place.start()
    pool = hive.until_state("unready")
    assert pool["last_error"]["code"] == "cannot_generate"
    assert "I cannot" in pool["last_error"]["message"]


def test_an_engine_that_turns_mute_is_replaced(place, engine) -> None:
    flag = engine("turns-mute")
    hive = place.start()
    hive.until_ready()
    flag.touch()
    hive.until_state("unready")
    flag.unlink()
    hive.until_ready()
    assert "health" in {one["verdict"]["reason"] for one in hive.ask("/v2/pools/pool-0/why")[1]["verdicts"]}
    counted = 'skep_health_check_total{node_id="node-t",outcome="mute",pool_id="pool-0"} '
    told = next(line for line in hive.ask("/metrics")[1].splitlines() if line.startswith(counted))
    assert float(told.removeprefix(counted)) >= 3, "three missed probes are a crash"


def test_an_engine_that_closes_its_socket_but_lives_is_found(place, engine) -> None:
    flag = engine("closes")
    hive = place.start()
    before = hive.until_ready()["replicas"][0]
    flag.touch()
    hive.until_state("unready")
    flag.unlink()
    after = hive.until_ready()["replicas"][0]
    assert after["pid"] != before["pid"]
    assert place.workers() == [after["pid"]]


def test_a_device_error_takes_the_pool_out_with_its_own_reason(place, engine) -> None:
    engine("exits")
    hive = place.start()
    hive.until_state("unready")
    why = hive.until(lambda _: hive.ask("/v2/pools/pool-0/why")[1]["verdicts"])
    assert why[0]["verdict"]["reason"] == "device_error"
    assert why[0]["verdict"]["delay_s"] == pytest.approx(2.0, rel=0.1), "a device gets twice the time"
    assert "device-side assert" in why[0]["error"]["log_tail"]
    metrics = hive.ask("/metrics")[1]
    assert 'skep_driver_reset_total{node_id="node-t",pool_id="pool-0"} 1.0' in metrics


def test_a_foreign_engine_is_adopted_by_its_socket(place, engine) -> None:
    engine("well")
    hive = place.start()
    before = hive.until_ready()["replicas"][0]
    hive.kill()
    assert place.start().until_ready()["replicas"][0]["pid"] == before["pid"]
