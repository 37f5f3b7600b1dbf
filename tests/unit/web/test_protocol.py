"""The limits of a server, each met by a client that sends raw bytes."""

import asyncio
import json

from skep.web.asgi import ClientGone, read_body, send_whole


async def echo(scope, receive, send):
    try:
        body = await read_body(receive)
    except ClientGone:
        return
    await send_whole(send, 200, body)


GOOD = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi"


def code_of(response: bytes) -> str:
    return json.loads(response.partition(b"\r\n\r\n")[2])["error"]["code"]


async def test_whole_requests_pass_one_after_another(serve, connect):
    client = await connect(await serve(echo))
    for _ in range(3):
        await client.send(GOOD)
        assert (await client.response())[0] == 200


async def test_a_dripping_head_is_cut_off(serve, connect):
    client = await connect(await serve(echo, head_s=0.2))
    await client.send(b"POST / HTTP/1.1\r\nhost")
    status, body = await client.response()
    assert (status, code_of(body)) == (408, "request_too_slow")
    assert await client.is_closed()


async def test_a_head_that_drips_on_does_not_restart_its_limit(serve, connect):
    client = await connect(await serve(echo, head_s=0.3))

    async def drip():
        await client.send(b"GET / HTTP/1.1\r\n")
        while True:
            await client.send(b"x-drip: 1\r\n")
            await asyncio.sleep(0.02)

    task = asyncio.create_task(drip())
    status, _ = await client.response()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert status == 408


async def test_a_dripping_body_is_cut_off_and_its_handler_released(serve, connect):
    gone = asyncio.Event()

    async def handler(scope, receive, send):
        try:
            await read_body(receive)
        except ClientGone:
            gone.set()

    client = await connect(await serve(handler, body_s=0.2))
    await client.send(b"POST / HTTP/1.1\r\ncontent-length: 100\r\n\r\nslow")
    status, body = await client.response()
    assert (status, code_of(body)) == (408, "request_too_slow")
    async with asyncio.timeout(5):
        await gone.wait()


async def test_a_silent_connection_is_closed(serve, connect):
    client = await connect(await serve(echo, idle_s=0.1))
    assert await client.is_closed()


async def test_an_announced_huge_body_is_refused_before_it_is_sent(serve, connect):
    client = await connect(await serve(echo, body_bytes_max=10))
    await client.send(b"POST / HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n")
    status, body = await client.response()
    assert (status, code_of(body)) == (413, "body_too_large")


async def test_a_chunked_body_is_counted(serve, connect):
    client = await connect(await serve(echo, body_bytes_max=10))
    await client.send(
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n8\r\n12345678\r\n8\r\n12345678\r\n"
    )
    status, body = await client.response()
    assert (status, code_of(body)) == (413, "body_too_large")


async def test_a_huge_head_is_refused_whole_or_in_parts(serve, connect):
    server = await serve(echo, head_bytes_max=1000)
    whole, parts = await connect(server), await connect(server)
    await whole.send(b"GET / HTTP/1.1\r\nx: " + b"y" * 2000 + b"\r\n\r\n")
    await parts.send(b"GET / HTTP/1.1\r\nx: " + b"y" * 2000)
    for client in (whole, parts):
        status, body = await client.response()
        assert (status, code_of(body)) == (431, "head_too_large")


async def test_too_many_headers_are_refused(serve, connect):
    client = await connect(await serve(echo, headers_max=5))
    await client.send(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 6 + b"\r\n")
    assert (await client.response())[0] == 431


async def test_bytes_that_are_not_http_get_our_error(serve, connect):
    client = await connect(await serve(echo))
    await client.send(b"\x16\x03\x01 hello\r\n\r\n")
    status, body = await client.response()
    assert (status, code_of(body)) == (400, "malformed_http")


async def test_connections_over_the_maximum_are_refused_and_earlier_ones_live(serve, connect):
    server = await serve(echo, connections_max=1)
    first = await connect(server)
    await first.send(GOOD)
    assert (await first.response())[0] == 200
    second = await connect(server)
    status, body = await second.response()
    assert (status, code_of(body)) == (503, "too_many_connections")
    assert b"retry-after: " in body
    await first.send(GOOD)
    assert (await first.response())[0] == 200


async def test_a_reader_that_stalls_is_reset_after_the_limit(serve, connect):
    ended = asyncio.Event()

    async def flood(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while (await asyncio.wait_for(send_until_gone(send, receive), 20)) is not None:
                pass
        finally:
            ended.set()

    async def send_until_gone(send, receive):
        watcher = asyncio.create_task(receive())
        await asyncio.sleep(0)
        while not (watcher.done() and watcher.result()["type"] == "http.disconnect"):
            if watcher.done():
                watcher = asyncio.create_task(receive())
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            await asyncio.sleep(0)

    client = await connect(await serve(flood, stall_s=0.2))
    await client.send(b"GET / HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(10):
        await ended.wait()


async def test_half_closing_counts_as_leaving(serve, connect):
    left = asyncio.Event()

    async def wait_for_disconnect(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()

    client = await connect(await serve(wait_for_disconnect))
    await client.send(b"GET / HTTP/1.1\r\n\r\n")
    client.writer.write_eof()
    async with asyncio.timeout(5):
        await left.wait()
