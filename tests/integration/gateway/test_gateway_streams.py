"""Answers through the gateway: whole or told to be broken, cancelled, retried, held back."""

import asyncio
import json

import pytest
from tests.integration.gateway.conftest import (
    DONE,
    FAST,
    SSE_HEAD,
    STREAM,
    Rig,
    Upstream,
    chunk,
    dechunked,
    error,
    event,
    plain,
    request,
    split,
    streaming,
    whole,
)


async def test_a_plain_answer_comes_back_byte_for_byte(rig):
    async with Upstream(plain) as up:
        rig.serve(up)
        status, head, body = split(await rig.post())
    assert (status, body) == (200, b'{"ok":true,"usage":{"prompt_tokens":3,"completion_tokens":4}}')
    assert b"x-request-id: req-" in head
    assert (rig.outcomes[0].tokens_in, rig.outcomes[0].tokens_out) == (3, 4)


async def test_the_replica_gets_the_body_as_it_was_and_its_own_token_not_the_clients(rig):
    async with Upstream(plain) as up:
        rig.serve(up)
        body = b'{ "model" : "m", "prompt":"\\u00e9",  "unknown": [1, 2]}'
        await rig.post(body, extra=b"authorization: Bearer mine\r\ncookie: a=b\r\ntraceparent: 00-abc\r\n")
        assert up.bodies == [body]
        head = up.heads[0].lower()
    assert b"authorization: bearer secret" in head
    assert b"mine" not in head
    assert b"cookie" not in head
    assert b"traceparent: 00-abc" in head
    assert head.count(b"content-length") == 1


async def test_a_stream_comes_through_event_by_event_and_ends_cleanly(rig):
    release = asyncio.Event()

    async def script(up, reader, writer, body):
        writer.write(SSE_HEAD + chunk(event("a")))
        await release.wait()
        writer.write(chunk(event("b")) + chunk(DONE) + b"0\r\n\r\n")

    async with Upstream(script) as up:
        rig.serve(up)
        reader, writer = await rig.open()
        writer.write(request(STREAM))
        async with asyncio.timeout(5):
            await reader.readuntil(event("a"))
            release.set()
            rest = await reader.read()
        writer.close()
    assert rest.endswith(b"0\r\n\r\n")
    assert DONE in rest
    assert rig.outcomes[0].events == 2
    assert rig.outcomes[0].kind == "done"


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
async def test_however_the_bytes_are_cut_only_whole_events_go_on(rig, size):
    text = SSE_HEAD + b"".join(chunk(event(t)) for t in "abc") + chunk(DONE) + b"0\r\n\r\n"

    async def script(up, reader, writer, body):
        for start in range(0, len(text), size):
            writer.write(text[start : start + size])
            await writer.drain()
            if size < 1000:
                await asyncio.sleep(0)

    async with Upstream(script) as up:
        rig.serve(up)
        body, is_whole = dechunked(split(await rig.post(STREAM))[2])
    assert is_whole
    assert body == event("a") + event("b") + event("c") + DONE


@pytest.mark.parametrize("cut", ["mid_event", "mid_chunk", "between", "no_done", "garbage"])
async def test_a_stream_that_breaks_ends_in_an_error_and_no_clean_end(rig, cut):
    async def script(up, reader, writer, body):
        writer.write(SSE_HEAD + chunk(event("a")))
        await writer.drain()
        await asyncio.sleep(0.05)
        if cut == "mid_event":
            writer.write(chunk(event("half")[:20]))
        elif cut == "mid_chunk":
            writer.write(b"ff\r\n" + event("half")[:9])
        elif cut == "no_done":
            writer.write(b"0\r\n\r\n")
            return
        elif cut == "garbage":
            writer.write(b"zz\r\n")
        await writer.drain()
        writer.close()

    async with Upstream(script) as up:
        rig.serve(up)
        body, is_whole = dechunked(split(await rig.post(STREAM))[2])
    assert not is_whole
    assert b"[DONE]" not in body
    first, last = body.split(b"\n\n")[:2]
    assert first + b"\n\n" == event("a")
    told = json.loads(last.removeprefix(b"data: "))["error"]
    assert (told["code"], told["type"]) == ("stream_broken", "server_error")
    assert rig.outcomes[0].kind == "broken"


async def test_an_error_that_the_worker_tells_inside_its_stream_passes_as_it_is(rig):
    told = b'data: {"error": {"message": "out of memory"}}\n\n'

    async def script(up, reader, writer, body):
        writer.write(SSE_HEAD + chunk(event("a")) + chunk(told) + b"0\r\n\r\n")

    async with Upstream(script) as up:
        rig.serve(up)
        body, _ = dechunked(split(await rig.post(STREAM))[2])
    assert body == event("a") + told
    assert rig.outcomes[0].kind == "broken"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_closes_the_replicas_connection_at_once(rig, stream):
    started = asyncio.Event()

    async def script(up, reader, writer, body):
        if stream:
            writer.write(SSE_HEAD + chunk(event("a")))
        started.set()
        assert await reader.read() == b""
        up.gone.set()
        writer.close()

    async with Upstream(script) as up:
        rig.serve(up)
        _, writer = await rig.open()
        writer.write(request(STREAM if stream else None))
        async with asyncio.timeout(5):
            await started.wait()
            writer.transport.abort()
            await up.gone.wait()
            while not rig.outcomes:
                await asyncio.sleep(0)
    assert rig.outcomes[0].kind == "cancelled"


async def test_a_client_that_leaves_the_queue_leaves_nothing_behind(rig):
    held = asyncio.Event()

    async def script(up, reader, writer, body):
        await held.wait()
        await plain(up, reader, writer, body)

    async with Upstream(script) as up:
        rig.serve(up, slots=1)
        running = [asyncio.create_task(rig.post()) for _ in range(2)]
        while len(up.bodies) < 2:
            await asyncio.sleep(0)
        _, writer = await rig.open()
        writer.write(request())
        while rig.dispatcher.waiting < 1:
            await asyncio.sleep(0)
        writer.transport.abort()
        while rig.dispatcher.waiting:
            await asyncio.sleep(0)
        held.set()
        assert [split(await one)[0] for one in running] == [200, 200]
        assert len(up.bodies) == 2


async def test_a_dead_replica_is_out_after_one_failed_request_and_the_client_sees_nothing(rig):
    async with Upstream(plain) as dead, Upstream(plain) as alive:
        rig.serve(dead, alive)
    async with Upstream(plain) as alive:
        async with Upstream(plain) as gone:
            rig.serve(gone, alive)
        answers = [await rig.post() for _ in range(12)]
        assert {split(answer)[0] for answer in answers} == {200}
        assert rig.dispatcher.ejections == 1
        assert len(alive.bodies) == 12


@pytest.mark.parametrize("when", ["at_once", "after_head", "in_plain_body", "before_first_event"])
async def test_a_replica_that_dies_before_the_first_byte_costs_the_client_nothing(rig, when):
    async def dying(up, reader, writer, body):
        if when == "after_head":
            writer.write(SSE_HEAD)
        elif when == "before_first_event":
            writer.write(SSE_HEAD + chunk(b"data: {"))
        elif when == "in_plain_body":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.transport.abort()

    async with Upstream(dying) as bad, Upstream(streaming("x")) as good:
        rig.serve(bad, good)
        for _ in range(6):
            body, is_whole = dechunked(split(await rig.post(STREAM))[2])
            assert is_whole
            assert body == event("x") + DONE
        assert len(bad.bodies) <= 1


async def test_with_no_other_replica_the_error_is_typed_and_retryable(rig):
    async def dying(up, reader, writer, body):
        writer.transport.abort()

    async with Upstream(dying) as bad:
        rig.serve(bad, slots=4)
        answer = await rig.post()
    assert split(answer)[0] in (502, 503)
    assert error(answer)["retryable"] is True


async def test_a_full_or_draining_replica_is_passed_over(rig):
    async def draining(up, reader, writer, body):
        writer.write(
            whole(b'{"error":{"code":"draining"}}', b"503 Service Unavailable", b"retry-after: 7\r\n")
        )

    async with Upstream(draining) as bad, Upstream(plain) as good:
        rig.serve(bad, good)
        assert {split(await rig.post())[0] for _ in range(6)} == {200}
    async with Upstream(draining) as bad:
        rig.serve(bad)
        status, head, body = split(await rig.post())
        assert (status, body) == (503, b'{"error":{"code":"draining"}}')
        assert b"retry-after: 7" in head


async def test_a_replica_that_refuses_the_gateways_token_is_no_affair_of_the_client(rig):
    async def strict(up, reader, writer, body):
        writer.write(whole(b'{"error":{"code":"unauthorized"}}', b"401 Unauthorized"))

    async with Upstream(strict) as bad, Upstream(plain) as good:
        rig.serve(bad, good)
        assert {split(await rig.post())[0] for _ in range(6)} == {200}
        assert rig.dispatcher.ejections <= 1
    async with Upstream(strict) as bad:
        rig.serve(bad)
        assert split(await rig.post())[0] in (502, 503)


async def test_a_broken_plain_answer_is_never_sent_as_a_whole_one(rig):
    async def large(up, reader, writer, body):
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 300000\r\n\r\n"
            + b"x" * 200_000
        )
        await writer.drain()
        writer.transport.close()

    async with Upstream(large) as up:
        rig.serve(up)
        status, head, body = split(await rig.post())
    assert status == 200
    assert b"content-length: 300000" in head
    assert len(body) < 300_000


async def test_kept_connections_are_used_again_and_one_that_was_closed_is_no_failure(rig):
    async with Upstream(plain) as up:
        rig.serve(up)
        for _ in range(5):
            await rig.post()
        assert up.connections == 1
        for writer in list(up.writers):
            writer.close()
        assert split(await rig.post())[0] == 200
        assert rig.dispatcher.ejections == 0


async def test_one_client_connection_carries_many_requests(rig):
    async with Upstream(plain) as up:
        rig.serve(up)
        reader, writer = await rig.open()
        for _ in range(3):
            writer.write(request(close=False))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()
        assert len(up.bodies) == 3


async def test_pipelining_is_declined_after_the_first_answer(rig):
    async with Upstream(plain) as up:
        rig.serve(up)
        answer = await rig.raw(request(close=False) + request(close=False))
        assert answer.count(b"HTTP/1.1 200") == 1
        assert b"connection: close" in answer.lower()
        assert len(up.bodies) == 1


async def test_a_client_that_does_not_read_pauses_its_replica_and_is_cut_off_in_the_end(rig):
    sent = 0

    async def flood(up, reader, writer, body):
        nonlocal sent
        writer.write(SSE_HEAD)
        block = chunk(event("x" * 10_000))
        for _ in range(5_000):
            writer.write(block)
            sent += len(block)
            await writer.drain()

    async with Upstream(flood) as up:
        rig.serve(up)
        _, writer = await rig.open()
        writer.transport.pause_reading()
        writer.write(request(STREAM))
        async with asyncio.timeout(10):
            while not rig.outcomes:
                await asyncio.sleep(0.02)
        writer.transport.abort()
    assert sent < 30_000_000
    assert rig.outcomes[0].kind == "cancelled"


async def test_a_reader_that_comes_back_gets_every_event(rig):
    texts = [f"{n:05d}" + "x" * 2_000 for n in range(2_000)]
    async with Upstream(streaming(*texts)) as up:
        rig.serve(up)
        reader, writer = await rig.open()
        writer.write(request(STREAM))
        writer.transport.pause_reading()
        await asyncio.sleep(0.3)
        writer.transport.resume_reading()
        async with asyncio.timeout(20):
            answer = await reader.read()
        writer.close()
    body, is_whole = dechunked(split(answer)[2])
    assert is_whole
    assert body == b"".join(event(text) for text in texts) + DONE


async def test_a_replica_that_falls_silent_in_a_stream_ends_in_an_error(rig):
    async def silent(up, reader, writer, body):
        writer.write(SSE_HEAD + chunk(event("a")))
        await reader.read()

    async with Upstream(silent) as up:
        rig.serve(up)
        body, is_whole = dechunked(split(await rig.post(STREAM))[2])
    assert not is_whole
    assert b'"code":"timeout"' in body


async def test_stopping_ends_running_streams_with_an_error_and_refuses_the_waiting():
    rig = Rig(FAST)

    async def endless(up, reader, writer, body):
        writer.write(SSE_HEAD + chunk(event("a")))
        await reader.read()

    async with Upstream(endless) as up:
        async with rig.gateway:
            rig.serve(up, slots=1)
            asked = [asyncio.create_task(rig.post(STREAM)) for _ in range(3)]
            while len(up.bodies) < 2 or not rig.dispatcher.waiting:
                await asyncio.sleep(0)
            reader, writer = await rig.open()
        answers = [await one for one in asked]
    assert sum(b"gateway_stopping" in answer for answer in answers) == 3
    assert sorted(split(answer)[0] for answer in answers) == [200, 200, 503]
    assert await reader.read() == b""
    writer.close()
