"""Clients that misbehave: what they send, how slowly, what they do not read, and when they leave."""

import asyncio
import contextlib
import json
import socket

import pytest

from skep.errors.harness import WorkerHttpFailed
from skep.testkit.harness import (
    assert_successful_completion,
    collect_sse_events,
    extract_tokens,
    make_request,
)
from skep.wire.events import Error

pytestmark = pytest.mark.asyncio(loop_scope="module")

SLOW = "fake:slow?token_delay_ms=30"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


async def raw(worker, method, path, body=b"", content_type="application/json"):
    headers = {"content-type": content_type} if content_type else {}
    async with worker.client.request(method, path, data=body, headers=headers) as response:
        return response.status, (await response.json())["error"], response.headers


@pytest.mark.parametrize(
    ("method", "path", "body", "content_type", "status", "code"),
    [
        ("POST", "/v1/chat/completions", b"{", "application/json", 400, "malformed_json"),
        ("POST", "/v1/chat/completions", b"[]", "application/json", 400, "malformed_json"),
        ("POST", "/v1/chat/completions", b"\xff\xfe", "application/json", 400, "malformed_json"),
        ("POST", "/v1/chat/completions", b"[" * 100_000, "application/json", 400, "malformed_json"),
        ("POST", "/execute", b'{"job_id": 3, "prompt": []}', "application/json", 400, "invalid_request"),
        ("POST", "/execute", b"{}", "text/plain", 415, "unsupported_media_type"),
        ("POST", "/v1/completions", b"{}", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        ("GET", "/execute", b"", None, 405, "method_not_allowed"),
        ("DELETE", "/v1/models", b"", None, 405, "method_not_allowed"),
        ("GET", "/nowhere", b"", None, 404, "route_not_found"),
        ("POST", "/v1/chat/completions", b"x" * 1_040_000, "application/json", 413, "body_too_large"),
    ],
)  # fmt: skip
async def test_bad_requests_have_their_status_and_code(
    start_worker, method, path, body, content_type, status, code
):
    worker = await start_worker(extra=("--body-bytes-max", "1000000"))
    found, error, headers = await raw(worker, method, path, body, content_type)
    assert (found, error["code"]) == (status, code)
    assert headers["content-type"] == "application/json"
    assert ("allow" in headers) == (status == 405)
    assert (await worker.health())["status"] == "ready"


async def test_a_dripping_client_holds_no_slot_and_is_cut_off(start_worker):
    worker = await start_worker(slots=1, extra=("--head-s", "0.5", "--body-s", "0.5"))
    drips = []
    for start in (
        b"POST /execute HTTP/1.1\r\nx: ",
        b"POST /execute HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
        writer.write(start)
        drips.append((reader, writer))
    assert_successful_completion(await collect_sse_events(await worker.execute(make_request(max_tokens=3))))
    for reader, writer in drips:
        async with asyncio.timeout(5):
            assert b" 408 " in (await reader.read(200))[:20]
        writer.close()


async def test_a_full_queue_is_429_with_retry_after_and_health_answers(start_worker):
    worker = await start_worker(SLOW, slots=1, extra=("--queue-max", "1", "--served-name", "m"))
    first = await worker.execute(make_request(max_tokens=500))
    second = asyncio.create_task(worker.execute(make_request()))
    await worker.until_health(lambda found: found["queue_depth"] == 1)
    for path, body in (("/execute", {"job_id": "x", "prompt": "y"}), ("/v1/chat/completions", CHAT)):
        status, error, headers = await raw(worker, "POST", path, json.dumps(body).encode())
        assert (status, error["code"], error["retryable"]) == (429, "queue_full", True)
        assert 1 <= int(headers["retry-after"]) <= 30
    status, _, _ = await raw(worker, "POST", "/v1/chat/completions", json.dumps(CHAT | {"n": 3}).encode())
    assert status == 429
    await first.aclose()
    assert_successful_completion(await collect_sse_events(await second))


async def test_running_out_of_time_is_a_timeout_while_queued_and_while_running(start_worker):
    worker = await start_worker(SLOW, slots=1, extra=("--timeout-s", "1.0"))
    running = await worker.execute(make_request(max_tokens=2000))
    queued = await asyncio.gather(
        *(worker.execute(make_request(max_tokens=2000)) for _ in range(3)), return_exceptions=True
    )
    for one in queued:
        if isinstance(one, WorkerHttpFailed):
            assert (one.status, one.error.code) == (504, "timeout")
        else:  # It got the slot in the moment in which the first one lost it.
            assert (await collect_sse_events(one))[-1].code == "timeout"
    assert any(isinstance(one, WorkerHttpFailed) for one in queued)
    last = (await collect_sse_events(running))[-1]
    assert isinstance(last, Error)
    assert (last.code, last.retryable) == ("timeout", True)


async def leave(writer, *, how):
    if how == "reset":
        raw_socket = writer.get_extra_info("socket")
        raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])
@pytest.mark.parametrize("queued", [True, False], ids=["queued", "running"])
async def test_a_client_that_leaves_frees_its_slot(start_worker, how, stream, queued):
    worker = await start_worker(SLOW, slots=1, extra=("--served-name", "m"))
    holder = await worker.execute(make_request(max_tokens=2000)) if queued else None
    body = json.dumps(CHAT | {"stream": stream, "max_tokens": 900, "ignore_eos": True}).encode()
    _, writer = await asyncio.open_connection("127.0.0.1", worker.port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    busy = "queue_depth" if queued else "slots_free"
    await worker.until_health(lambda found: found[busy] == (1 if queued else 0))
    await leave(writer, how=how)
    await worker.until_health(lambda found: found[busy] == (0 if queued else 1), within_s=2)
    if holder is not None:
        assert len(await worker.jobs()) == 1
        await holder.aclose()


async def test_a_stalled_reader_pauses_itself_alone_and_is_cancelled_in_the_end(start_worker):
    worker = await start_worker("fake:fast", slots=2, context=16_384, extra=("--stall-s", "1.5", "--max-tokens-out", "2048",
                                "--served-name", "m"))  # fmt: skip
    body = json.dumps(
        CHAT
        | {"stream": True, "max_tokens": 16_000, "ignore_eos": True, "logprobs": True, "top_logprobs": 20}
    ).encode()
    loop = asyncio.get_running_loop()
    with socket.socket() as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.setblocking(False)
        await loop.sock_connect(link, ("127.0.0.1", worker.port))
        head = f"POST /v1/chat/completions HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        await loop.sock_sendall(link, head.encode() + body)

        async def paused():
            async with asyncio.timeout(5):
                while not [job for job in await worker.jobs() if job["state"] == "paused"]:
                    await asyncio.sleep(0.01)

        await paused()
        events = await collect_sse_events(await worker.execute(make_request("other", max_tokens=100)))
        assert_successful_completion(events)
        assert extract_tokens(events)
        await worker.until_health(lambda found: found["slots_free"] == 2, within_s=5)
        async with asyncio.timeout(8):
            while 'finished_reason="abort",model_name="m"} 1.0' not in await worker.metrics():
                await asyncio.sleep(0.05)


async def test_many_idle_connections_do_not_shut_others_out(start_worker):
    worker = await start_worker(extra=("--connections-max", "40", "--idle-s", "1"))
    idle = [await asyncio.open_connection("127.0.0.1", worker.port) for _ in range(30)]
    assert_successful_completion(await collect_sse_events(await worker.execute(make_request(max_tokens=3))))
    for reader, writer in idle:
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
