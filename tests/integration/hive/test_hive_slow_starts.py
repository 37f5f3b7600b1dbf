"""A program that says nothing while it loads: one that works gets more time, one that only waits does not."""

import asyncio
import sys
import textwrap

import pytest

from skep.policy.starting import StartLimits
from skep.spec.engine import EngineKind, EngineSpec
from skep.spec.pool import PoolSpec

LIMIT_S = 2.0
LOADS_S = 5.0
PROGRAM = textwrap.dedent(
    """
    import sys, time
    from http.server import BaseHTTPRequestHandler, HTTPServer
    port, how, loads_s = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_): pass
        def do_GET(self):
            body = b"{}" if self.path in ("/health", "/v1/models") else b""
            self.send_response(200 if body else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        def do_POST(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            body = b'{"choices": [{"text": "x"}]}'
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    end = time.monotonic() + loads_s
    while time.monotonic() < end:
        if how == "waits": time.sleep(0.05)
    HTTPServer(("127.0.0.1", port), Handler).serve_forever()
    """
)


@pytest.mark.parametrize("how", ["computes", "waits"])
async def test_a_silent_program_that_computes_may_take_longer_than_one_that_waits(
    hive_here, comes_true, tmp_path, how: str
) -> None:
    program, model = tmp_path / "server.py", tmp_path / "model.bin"
    program.write_text(PROGRAM)
    model.write_bytes(b"weights")
    argv = (sys.executable, str(program), "{port}", how, str(LOADS_S))
    engine = EngineSpec(id="mine", kind=EngineKind.COMMAND, argv=argv)
    spec = PoolSpec(id="p", model=str(model), engine="mine", devices="cpu")
    limits = StartLimits(base_s=LIMIT_S, per_gib_s=0.0, progress_s=LIMIT_S)
    async with hive_here(engines=(engine,), pools=(spec,), start=limits) as core:
        pool = core.pools.get("p")
        began = asyncio.get_running_loop().time()
        await comes_true(lambda: pool.serving or pool.judging.verdicts)
        reasons = [one.verdict["reason"] for one in pool.judging.verdicts]
        if how == "computes":
            assert (len(pool.serving), reasons) == (1, [])
            assert asyncio.get_running_loop().time() - began > LOADS_S > 2 * LIMIT_S
        else:
            assert (len(pool.serving), reasons) == (0, ["start_timeout"])
            assert core.why("p").verdicts[0].verdict["because"].startswith("start_timeout after 0.0 s ready")
            assert pool.last_error["code"] == "start_timed_out"
            assert "was not ready after 2 s" in pool.last_error["message"]
            lost = {"node_id": "n", "pool_id": "p", "reason": "start_timeout"}
            assert core.node.metrics.registry.get_sample_value("skep_restart_total", lost) == 1
