"""Prometheus itself, Debian's, scrapes a hive: it finds every series of the specification, and sees them move."""

import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = shutil.which("prometheus")
SERIES = {
    "skep_pool_ready", "skep_pool_state", "skep_pool_slots_total", "skep_pool_slots_free", "skep_device_memory_total_bytes",
    "skep_device_memory_used_bytes", "skep_device_memory_free_bytes", "skep_host_memory_total_bytes",
    "skep_host_memory_available_bytes", "skep_preload_total", "skep_preload_seconds_bucket", "skep_restart_total",
    "skep_driver_reset_total", "skep_backoff_seconds", "skep_breaker_state", "skep_storm_total", "skep_handoff_total",
    "skep_health_check_total", "skep_drain_seconds_bucket", "skep_reload_total",
}  # fmt: skip


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def scraped(tmp_path: Path) -> Iterator[Callable[[str, str], Callable[[str], Any]]]:
    """Return what starts a Prometheus over one target; that returns what asks its API."""
    running: list[subprocess.Popen] = []

    def start(target: str, token_file: str) -> Callable[[str], Any]:
        port, config = free_port(), tmp_path / "prometheus.yml"
        job = {
            "job_name": "skep",
            "scrape_interval": "200ms",
            "scrape_timeout": "200ms",
            "authorization": {"credentials_file": token_file},
            "static_configs": [{"targets": [target]}],
        }
        config.write_text(json.dumps({"scrape_configs": [job]}))  # JSON is YAML.
        argv = [
            PROGRAM,
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path}/tsdb",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with (tmp_path / "prometheus.log").open("wb") as log:
            running.append(subprocess.Popen(argv, stdout=log, stderr=log))

        def ask(path: str) -> Any:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", timeout=10) as reply:
                    return json.load(reply)["data"]
            except (urllib.error.URLError, ConnectionError):
                return None

        return ask

    yield start
    for process in running:
        process.terminate()
        process.wait(20)


@pytest.mark.skipif(PROGRAM is None, reason="needs Debian's prometheus")
def test_prometheus_finds_every_series_and_sees_them_move(place, pool_toml, scraped, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef-hive")
    token.chmod(0o600)
    device = "[[fake_device]]\nindex = 0\nmemory_total_bytes = 2000000000\n"
    place.configure(device + pool_toml(devices="0"), token_file=str(token))
    hive = place.start()
    ask = scraped(hive.url.removeprefix("http://"), str(token))

    def values(query: str) -> list[float]:
        found = ask("query?" + urllib.parse.urlencode({"query": query})) or {"result": []}
        return [float(one["value"][1]) for one in found["result"]]

    place.until(lambda: values("skep_pool_ready") == [1.0], within_s=60)
    found = ask("label/__name__/values")
    assert set(found) >= SERIES
    labelled = urllib.parse.urlencode({"match[]": '{__name__=~"skep_.*",node_id!="node-t"}'})
    assert ask(f"series?{labelled}") == []
    (target,) = ask("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    place.until(lambda: (values('delta(skep_health_check_total{outcome="well"}[10s])') or [0])[0] > 0)
    assert values('skep_pool_state{state="ready"}') == [1.0]
    assert hive.ask("/v2/pools/pool-0/drain", {"deadline_ms": 0}, token=token.read_text())[0] == 202
    place.until(lambda: values("skep_pool_ready") == [0.0])
    place.until(lambda: values("skep_drain_seconds_count") == [1.0])
