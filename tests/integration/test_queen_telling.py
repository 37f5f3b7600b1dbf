"""What a queen tells others: recorded traces, spans, TLS; and 1,000 streams at once."""

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from skep.arena.fleet.requests import read_requests

LONG = "all prompts begin alike " * 40


def ask(text: str, **more) -> dict:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


async def register(admin: str, worker: str, slots: int = 4, **client) -> None:
    replica = {
        "replica_id": "r0",
        "url": worker,
        "instance": "i",
        "state": "ready",
        "slots_total": slots,
        "slots_free": slots,
    }
    pools = [{"pool_id": "p", "model": "m", "state": "ready", "replicas": [replica]}]
    body = {"node_id": "n1", "address": "http://127.0.0.1:9", "version": "0", "instance": "h", "pools": pools}
    async with (
        aiohttp.ClientSession(**client) as session,
        session.post(f"{admin}/v2/nodes/register", json=body) as answer,
    ):
        assert answer.status == 200


async def test_a_recorded_trace_is_what_the_arena_reads_and_holds_no_prompt(
    start_queen, start_worker, tmp_path
):
    trace = tmp_path / "requests.jsonl"
    queen = start_queen("--record-trace", str(trace))
    worker, _ = start_worker()
    await register(queen.admin, worker)
    async with aiohttp.ClientSession(queen.gateway) as session:
        for text in (LONG, LONG + "but end otherwise", "short"):
            async with session.post("/v1/chat/completions", json=ask(text)) as answer:
                assert answer.status == 200
        async with session.post("/v1/chat/completions", json=ask("x") | {"model": "none"}) as answer:
            assert answer.status == 404
    queen.child.terminate()
    assert queen.child.wait(10) == 0
    first, second, third = read_requests(trace)
    assert (first.prompt_tokens, first.output_tokens) == (5, 4)
    assert first.blocks[:3] == second.blocks[:3] != ()
    assert third.blocks == ()
    assert "alike" not in trace.read_text()


@pytest.fixture
async def collector() -> AsyncIterator[tuple[str, list]]:
    """An OTLP collector's HTTP side."""
    spans: list[dict] = []

    async def take(request: web.Request) -> web.Response:
        body = await request.json()
        spans.extend(body["resourceSpans"][0]["scopeSpans"][0]["spans"])
        assert "authorization" not in request.headers
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}", spans
    await runner.cleanup()


async def test_spans_continue_the_clients_trace(start_queen, start_worker, collector, monkeypatch):
    url, spans = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    queen = start_queen()
    worker, _ = start_worker()
    await register(queen.admin, worker)
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = {"traceparent": f"00-{trace}-{parent}-01"}
    async with aiohttp.ClientSession(queen.gateway) as session:
        async with session.post("/v1/chat/completions", json=ask("hi"), headers=headers) as answer:
            assert answer.status == 200
        async with asyncio.timeout(10):
            while not spans:
                await asyncio.sleep(0.05)
    assert (spans[0]["traceId"], spans[0]["parentSpanId"]) == (trace, parent)
    told = {one["key"]: next(iter(one["value"].values())) for one in spans[0]["attributes"]}
    assert told["gen_ai.request.model"] == "m"
    assert told["gen_ai.usage.output_tokens"] == "4"


async def test_tls_on_both_ports(start_queen, start_worker, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    queen = start_queen("--tls-cert", str(certificate), "--tls-key", str(key))
    assert queen.gateway.startswith("https://")
    trusted = ssl.create_default_context(cafile=certificate)
    worker, _ = start_worker()
    await register(queen.admin, worker, connector=aiohttp.TCPConnector(ssl=trusted))
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusted)) as session,
        session.post(f"{queen.gateway}/v1/chat/completions", json=ask("hi", stream=True)) as answer,
    ):
        assert (await answer.read()).endswith(b"data: [DONE]\n\n")
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(f"{queen.gateway}/v1/models")


async def test_a_thousand_streams_at_once_lose_no_event(start_queen, start_worker):
    queen = start_queen()
    worker, _ = start_worker()
    await register(queen.admin, worker, slots=1000)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        queen.gateway, connector=connector, timeout=aiohttp.ClientTimeout(total=100)
    ) as session:

        async def one() -> bytes:
            async with session.post("/v1/chat/completions", json=ask("hi", stream=True)) as answer:
                return await answer.read()

        answers = await asyncio.gather(*(one() for _ in range(1000)))
    for answer in answers:
        events = [line for line in answer.split(b"\n\n") if line]
        text = "".join(json.loads(line[6:])["choices"][0]["delta"].get("content", "") for line in events[:-1])
        assert (text, events[-1]) == ("the sky is blue.", b"data: [DONE]")
