"""The hive's API as others use it: tokens, TLS, its document, metrics, events, logs, the command line."""

import http.client
import json
import os
import random
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

TOKEN = "0123456789abcdef-not-a-secret"


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return path


def skep(place, hive, *argv: str, code: int = 0) -> subprocess.CompletedProcess:
    env = {**os.environ, "SKEP_HIVE_URL": hive.url, "NO_COLOR": "1", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "skep.cli.main", *argv],
        check=False,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=place.folder,
    )
    assert done.returncode == code, done.stderr
    return done


def test_every_route_but_health_asks_for_the_token_and_the_log_never_holds_it(
    place, pool_toml, token_file
) -> None:
    place.configure(pool_toml(), token_file=str(token_file))
    hive = place.start()
    document = hive.ask("/schema", token=TOKEN)[1]
    for path, methods in document["paths"].items():
        for method in methods:
            route = path.replace("{pool_id}", "pool-0")
            status, _ = hive.ask(route, {} if method == "post" else None, method=method.upper())
            assert status == (200 if route == "/health" else 401), (method, route)
            if route != "/health":
                assert hive.ask(route, method="GET", token="wrong")[0] == 401
    place.until(lambda: hive.ask("/v2/pools/pool-0", token=TOKEN)[1]["state"] == "ready", within_s=40)
    bodies = json.dumps([hive.ask(path, token=TOKEN)[1] for path in ("/v2/pools", "/v2/state")])
    worker_tokens = [one["token"] for one in place.handoffs().values()]
    assert len(worker_tokens) == 1
    for secret in (TOKEN, *worker_tokens):
        assert secret not in hive.log.read_text()
        assert secret not in bodies
    for pid in place.workers():
        assert worker_tokens[0] not in Path(f"/proc/{pid}/cmdline").read_text()


def test_an_open_bind_without_a_token_is_refused_in_one_line(place) -> None:
    place.configure(bind="0.0.0.0:0")
    hive = place.start(wait=False)
    assert hive.process.wait(30) == 2
    assert hive.log_tail().splitlines() == [
        "skep: refusing to bind 0.0.0.0 without a token: give --token-file, or bind 127.0.0.1"
    ]


def test_tls_is_served_with_a_certificate(place, tmp_path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    place.configure(tls_cert=str(certificate), tls_key=str(key))
    hive = place.start()
    assert hive.url.startswith("https://")
    port = int(hive.url.rpartition(":")[2])
    context = ssl.create_default_context(cafile=str(certificate))
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
    connection.request("GET", "/health")
    assert json.load(connection.getresponse())["status"] == "ok"
    connection.close()


def test_prometheus_can_read_every_series_and_they_move(place, pool_toml) -> None:
    device = "[[fake_device]]\nindex = 0\nmemory_total_bytes = 2000000000\ntemperature_c = 50.0\n"
    place.configure(device + pool_toml(devices="0"))
    hive = place.start()
    hive.until_ready()
    hive.until(lambda pool: pool["replicas"][0]["ready_s"] > 0.5)

    def read() -> dict[tuple, float]:
        return {
            (one.name, *sorted(one.labels.items())): one.value
            for family in text_string_to_metric_families(hive.ask("/metrics")[1])
            for one in family.samples
        }

    before = read()
    names = {key[0] for key in before}
    assert all(("node_id", "node-t") in key for key in before)
    for name in (
        "skep_pool_ready", "skep_pool_state", "skep_pool_slots_total", "skep_pool_slots_free", "skep_device_memory_total_bytes",
        "skep_device_memory_used_bytes", "skep_device_memory_free_bytes", "skep_host_memory_total_bytes",
        "skep_host_memory_available_bytes", "skep_preload_total", "skep_preload_seconds_count", "skep_restart_total",
        "skep_driver_reset_total", "skep_backoff_seconds", "skep_breaker_state", "skep_storm_total", "skep_handoff_total",
        "skep_health_check_total", "skep_drain_seconds_count", "skep_reload_total",
    ):  # fmt: skip
        assert name in names, name

    def value(values: dict, name: str, **labels: str) -> float:
        return sum(v for key, v in values.items() if key[0] == name and set(labels.items()) <= set(key[1:]))

    assert value(before, "skep_pool_ready") == 1
    assert value(before, "skep_pool_state", state="ready") == 1
    assert value(before, "skep_pool_state") == 1
    assert value(before, "skep_preload_total", outcome="ready") == 1
    assert value(before, "skep_handoff_total", outcome="written") == 1
    assert value(before, "skep_health_check_total", outcome="well") >= 1
    assert value(before, "skep_device_memory_used_bytes", device_id="FAKE-0") > 0
    os.kill(hive.pool()["replicas"][0]["pid"], 9)
    hive.until(lambda pool: pool["replicas"][0]["restart_count"] == 1)
    hive.until_ready()
    hive.ask("/v2/pools/pool-0/reload", {})
    hive.until(lambda pool: pool["last_reload"] and pool["state"] == "ready")
    hive.ask("/v2/pools/pool-0/drain", {"deadline_ms": 0})
    hive.until_state("offline")
    after = read()
    assert value(after, "skep_restart_total", reason="signal") == 1
    assert value(after, "skep_backoff_seconds") > 0.5
    assert value(after, "skep_reload_total", outcome="reloaded") == 1
    assert value(after, "skep_drain_seconds_count") == 1
    assert value(after, "skep_handoff_total", outcome="removed") == 3
    assert value(after, "skep_pool_ready") == 0
    place.until(lambda: value(read(), "skep_device_memory_used_bytes", device_id="FAKE-0") == 0)


def test_events_come_as_they_happen_and_resume_after_an_id(place, pool_toml) -> None:
    place.configure(pool_toml())
    hive = place.start()
    hive.until_ready()
    connection = http.client.HTTPConnection(hive.url.removeprefix("http://"), timeout=20)
    connection.request("GET", "/v2/pools/pool-0/events", headers={"last-event-id": "1"})
    stream = connection.getresponse()
    assert stream.getheader("content-type").startswith("text/event-stream")
    seen: list[dict] = []

    def read() -> None:
        for line in stream:
            if line.startswith(b"data: "):
                seen.append(json.loads(line[6:]))
                if seen[-1]["facts"].get("state") == "offline":
                    return

    reader = threading.Thread(target=read)
    reader.start()
    hive.ask("/v2/pools/pool-0/drain", {"deadline_ms": 0})
    reader.join(20)
    connection.close()
    assert not reader.is_alive()
    assert [one["id"] for one in seen] == list(range(2, 2 + len(seen)))
    states = [one["facts"]["state"] for one in seen if one["kind"] == "pool"]
    assert states == ["provisioning", "starting", "ready", "draining", "offline"]
    assert hive.ask("/v2/pools/pool-0/events?follow=false", method="GET")[0] == 200


def test_the_command_line_looks_and_acts(place, pool_toml) -> None:
    place.configure(pool_toml())
    hive = place.start()
    hive.until_ready()
    assert "pool-0" in skep(place, hive, "pool", "list").stdout
    assert json.loads(skep(place, hive, "pool", "list", "--json").stdout)[0]["state"] == "ready"
    assert "r0" in skep(place, hive, "pool", "status", "pool-0").stdout
    reloaded = skep(place, hive, "pool", "reload", "pool-0", "--model", "fake:two", "--wait")
    assert reloaded.stdout == "pool-0 ready\n"
    failed = skep(
        place,
        hive,
        "pool",
        "reload",
        "pool-0",
        "--model",
        "fake:x?fail_load=gguf_truncated",
        "--wait",
        code=1,
    )
    assert "serves what it served before" in failed.stderr
    assert skep(place, hive, "pool", "logs", "pool-0").returncode == 0
    assert (
        skep(place, hive, "pool", "drain", "pool-0", "--deadline-s", "0", "--wait").stdout
        == "pool-0 offline\n"
    )
    assert skep(place, hive, "pool", "preload", "pool-0", "--wait").stdout == "pool-0 ready\n"
    os.kill(hive.pool()["replicas"][0]["pid"], 9)
    hive.until(lambda pool: pool["replicas"][0]["restart_count"] == 1)
    assert "signal after" in skep(place, hive, "pool", "why", "pool-0").stdout
    assert skep(place, hive, "pool", "reset", "pool-0").returncode == 0
    missing = skep(place, hive, "pool", "status", "nothing", code=1)
    assert missing.stderr == "skep: there is no pool 'nothing' on node node-t; here: pool-0\n"
    assert "cpu" in skep(place, hive, "devices").stdout
    assert json.loads(skep(place, hive, "config", "schema").stdout)["$ref"]
    assert "hive_daemon.probe_interval_s" in skep(place, hive, "config", "show").stdout


def test_a_pool_that_asks_for_a_gpu_where_there_is_none_says_so_and_nothing_is_spawned(
    place, pool_toml
) -> None:
    place.configure(pool_toml(devices="0") + pool_toml("other"))
    hive = place.start()
    pool = hive.until_state("unready")
    assert pool["last_error"]["code"] == "invalid_device_mask"
    assert "no accelerator was found" in pool["last_error"]["message"]
    other = hive.until_ready(pool_id="other")
    assert place.workers() == [other["replicas"][0]["pid"]], "the other pool is served all the same"


def test_a_configuration_that_contradicts_itself_is_one_line(place, pool_toml) -> None:
    place.configure(pool_toml(engine="nothing"))
    hive = place.start(wait=False)
    assert hive.process.wait(30) == 1
    assert hive.log_tail(1) == "skep: pool pool-0: no engine 'nothing' is configured here; there is skep"


FUZZING = """
[[operations]]
include-name = "GET /ready"
checks.not_a_server_error.expected-statuses = ["2xx", "4xx", 503]  # Its second answer.

[[operations]]
include-name = "POST /v2/pools"
# Well-formed, and yet this machine has no such engine or device.
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 404, 409, 503]
"""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("examples", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_nothing_that_the_document_allows_or_forbids_breaks_the_server(
    place, pool_toml, examples: int
) -> None:
    place.configure(pool_toml())
    hive = place.start()
    hive.until_ready()
    config = place.folder / "schemathesis.toml"
    config.write_text(FUZZING)
    # Left out: the event streams, which never end; the next test has them.
    program = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [program, "--config-file", config, "run", f"{hive.url}/schema", "--exclude-path-regex", "/(events|logs)$",
         "--max-examples", os.environ.get("SKEP_FUZZ", str(examples)), "--seed",
         os.environ.get("SKEP_SEED", "20260101"), "--no-color", "--phases", "examples,coverage,fuzzing",
         "--request-timeout", "20"],
        check=False, capture_output=True, text=True, timeout=880, cwd=place.folder,
    )  # fmt: skip
    (place.folder / "schemathesis.txt").write_text(done.stdout)
    assert done.returncode == 0, done.stdout[-6000:]
    assert hive.process.poll() is None
    assert hive.ask("/health")[0] == 200


@pytest.mark.parametrize("route", ["events", "logs"])
def test_malformed_requests_for_a_stream_are_refused_or_answered_and_never_break_it(
    place, pool_toml, route: str
) -> None:
    rng = random.Random(int(os.environ.get("SKEP_SEED", "20260101")))
    place.configure(pool_toml())
    hive = place.start()
    hive.until_ready()
    values = [
        "0",
        "-1",
        "1e9",
        "9" * 30,
        "true",
        "nope",
        "%00",
        "%ff%fe",
        "r0",
        "../../etc/passwd",
        "",
        "a" * 3000,
    ]
    names = ["follow", "lines", "replica", "unknown"]
    connection = http.client.HTTPConnection(hive.url.removeprefix("http://"), timeout=20)
    statuses = set()
    for _ in range(int(os.environ.get("SKEP_FUZZ", "10")) * 10):
        query = "&".join(f"{rng.choice(names)}={rng.choice(values)}" for _ in range(rng.randrange(4)))
        pool_id = rng.choice(["pool-0", "pool-0", "pool-0", "gone", "%2e%2e", "a" * 200])
        headers = (
            {"last-event-id": rng.choice(["0", "x", "9" * 40, "-1", "\xff"])} if rng.random() < 0.5 else {}
        )
        connection.request(
            rng.choice(["GET", "GET", "GET", "POST", "PATCH"]),
            f"/v2/pools/{pool_id}/{route}?follow=false&{query}",
            headers=headers,
        )
        reply = connection.getresponse()
        statuses.add(reply.status)
        if reply.status == 200:
            assert reply.getheader("content-type").startswith("text/event-stream")
            connection.close()  # It may follow for ever.
            continue
        error = json.loads(reply.read())["error"]
        assert 400 <= reply.status < 500, error
        assert {"code", "message", "retryable"} <= set(error)
    connection.close()
    assert {200, 400, 404, 405} <= statuses
    assert hive.ask("/health")[0] == 200
