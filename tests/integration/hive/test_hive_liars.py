"""Programs in our own worker's place that are not what they say: another's nonce, mute, deaf, or without an end."""

import sys
import textwrap
from pathlib import Path

import pytest

from skep.hive.adapter.base import Launch
from skep.hive.adapter.skep import SkepAdapter
from skep.process import group
from skep.spec.config import FakeDeviceConfig
from skep.spec.pool import PoolSpec

LIAR = textwrap.dedent(
    """
    import json, os, signal, socket, subprocess, sys, threading, time
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    how, flag, listen_fd, report_fd = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    nonce = os.environ["SKEP_WORKER_NONCE"]
    asked = []  # Whether what answers the look after a token is another.
    def on(): return os.path.exists(flag)

    if how == "refuses" and on():
        sys.exit(3)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_): pass
        def answer(self, status, body):
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        def do_GET(self):
            swapped = how == "swaps" and asked and asked.pop()
            who = "another" if how == "foreign" or (how == "turns-foreign" and on()) or swapped else nonce
            self.answer(200, {"status": "ready", "instance": who, "resident": True, "slots_total": 1, "slots_free": 1,
                              "queue_depth": 0, "kv_used": 0.0, "tokens_total": 0})
        def do_POST(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            asked[:] = [on()]
            if how == "mute" or (how == "turns-mute" and on()):
                self.answer(500, {"error": {"message": "I cannot"}})
            else:
                self.answer(200, {"choices": [{"text": "x"}]})

    def say(**event):
        os.write(report_fd, json.dumps(event).encode() + b"\\n")

    if how == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if how == "forks":
        stay = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
        subprocess.Popen([sys.executable, "-S", "-c", stay], start_new_session=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=listen_fd)
    server.server_address = server.socket.getsockname()
    say(event="starting", pid=os.getpid(), nonce="another" if how == "reports-another" else nonce)
    say(event="ready", port=server.server_address[1])
    os.close(report_fd)
    if how == "closes":
        def close():
            while not on(): time.sleep(0.02)
            server.socket.close()
            time.sleep(600)
        threading.Thread(target=close).start()
    server.serve_forever()
    """
)
DEVICE = FakeDeviceConfig(index=0, memory_total_bytes=2_000_000_000)
POOL = PoolSpec(id="p", model="fake:demo", backend="fake", devices="0")


@pytest.fixture
def liar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a program in our worker's place that behaves in a given way; return the file that makes it turn."""
    script, flag = tmp_path / "liar.py", tmp_path / "flag"
    script.write_text(LIAR)
    launch = SkepAdapter.launch

    def replace(how: str) -> Path:
        def launch_liar(self: SkepAdapter, order) -> Launch:
            argv = (
                sys.executable,
                "-S",
                str(script),
                how,
                str(flag),
                str(order.listen_fd),
                str(order.report_fd),
            )
            return Launch(argv=argv, env=launch(self, order).env)

        monkeypatch.setattr(SkepAdapter, "launch", launch_liar)
        return flag

    return replace


@pytest.mark.parametrize(
    ("how", "says"),
    [("reports-another", "another's nonce"), ("foreign", "another process answers"), ("mute", "I cannot")],
)
async def test_what_cannot_prove_itself_never_serves(
    hive_here, comes_true, liar, how: str, says: str
) -> None:
    liar(how)
    async with hive_here(fake_devices=(DEVICE,), pools=(POOL,)) as core:
        pool = core.pools.get("p")
        await comes_true(lambda: pool.state == "unready")
        assert says in pool.last_error["message"]
        assert not list((core.settings.runtime / "engines").iterdir()), "nobody was told that it serves"


@pytest.mark.parametrize(
    ("how", "says", "outcome", "probes"),
    [
        ("turns-foreign", "another process answers", "foreign", 1),
        ("swaps", "another process answers", "foreign", 1),
        ("turns-mute", "I cannot", "mute", 3),
        ("closes", "", "silent", 3),
    ],
)
async def test_what_turns_bad_is_taken_out_ended_and_replaced(
    hive_here, comes_true, liar, how: str, says: str, outcome: str, probes: int
) -> None:
    flag = liar(how)
    async with hive_here(fake_devices=(DEVICE,), pools=(POOL,), inference_probe=True) as core:
        pool = core.pools.get("p")
        await comes_true(lambda: pool.state == "ready")
        process = pool.serving[0].running.process
        assert probed(core, outcome) == 0
        flag.touch()
        await comes_true(lambda: pool.state == "unready")
        assert says in pool.last_error["message"]
        await comes_true(lambda: pool.judging.verdicts)
        assert pool.judging.verdicts[0].verdict["reason"] == "health"
        assert probed(core, outcome) == probes
        flag.unlink()
        await comes_true(lambda: pool.state == "ready")
        assert pool.serving[0].running.process.pid != process.pid
        assert not group.members(process.pgid)


def probed(core, outcome: str) -> float | None:
    """How often a scrape would find that a probe came back so."""
    labels = {"node_id": "n", "pool_id": "p", "outcome": outcome}
    return core.node.metrics.registry.get_sample_value("skep_health_check_total", labels)


@pytest.mark.parametrize("how", ["stubborn", "forks"])
async def test_what_will_not_go_goes_with_all_that_it_started(hive_here, comes_true, liar, how: str) -> None:
    liar(how)
    async with hive_here(fake_devices=(DEVICE,), pools=(POOL,), grace_s=0.5) as core:
        pool = core.pools.get("p")
        await comes_true(lambda: pool.state == "ready")
        nonce = pool.serving[0].running.endpoint.nonce
        assert len(group.marked("SKEP_WORKER_NONCE", nonce)) == (2 if how == "forks" else 1)
        await pool.drain(0.0)
        await comes_true(lambda: pool.state == "offline")
        assert not group.marked("SKEP_WORKER_NONCE", nonce)


async def test_a_reload_with_no_way_back_says_so_and_goes_on_trying_the_old_model(
    hive_here, comes_true, liar
) -> None:
    flag = liar("refuses")
    spec = PoolSpec(id="p", model="fake:old?memory_bytes=1200000000", backend="fake", devices="0")
    async with hive_here(fake_devices=(DEVICE,), pools=(spec,)) as core:
        pool = core.pools.get("p")
        await comes_true(lambda: pool.state == "ready")
        flag.touch()
        await pool.reload("fake:new?memory_bytes=1200000000", 0.0)
        await comes_true(lambda: pool.last_reload is not None)
        assert pool.last_reload["outcome"] == "failed"
        assert pool.state == "unready"
        assert pool.last_error["message"]
        flag.unlink()
        await pool.reset()
        await comes_true(lambda: pool.state == "ready")
        assert pool.plan.model_name == "old"
