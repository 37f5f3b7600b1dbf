"""Starting, stopping gracefully, and inheriting a socket."""

import asyncio
import os

import pytest

from skep.process.socket import bind_listener
from skep.web.asgi import send_whole
from skep.web.server import HttpServer, inherit, run

GET = b"GET / HTTP/1.1\r\n\r\n"


class Slow:
    """An application whose requests end when they are told to."""

    def __init__(self) -> None:
        self.begun, self.release = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope, receive, send):
        self.begun.set()
        await self.release.wait()
        await send_whole(send, 200, b"{}")


async def test_responses_carry_security_headers_and_no_server_name(serve, connect):
    app = Slow()
    app.release.set()
    client = await connect(await serve(app))
    await client.send(GET)
    _, response = await client.response()
    assert b"x-content-type-options: nosniff" in response
    assert b"\r\nserver:" not in response
    assert b"\r\ndate: " in response


async def test_stopping_lets_a_running_request_end(connect):
    app = Slow()
    server = HttpServer(app, listen=[bind_listener("127.0.0.1", 0)], grace_s=5)
    async with server:
        client = await connect(server)
        await client.send(GET)
        await app.begun.wait()
        closing = asyncio.create_task(server.aclose())
        await asyncio.sleep(0)
        app.release.set()
        assert (await client.response())[0] == 200
        await closing


async def test_stopping_cancels_what_does_not_end_in_time(connect, caplog):
    app = Slow()
    async with HttpServer(app, listen=[bind_listener("127.0.0.1", 0)], grace_s=0.1) as server:
        client = await connect(server)
        await client.send(GET)
        await app.begun.wait()
        async with asyncio.timeout(3):
            await server.aclose()
        assert await client.is_closed()
        assert server.requests_running == 0


async def test_stopping_closes_idle_connections_at_once(serve, connect):
    app = Slow()
    app.release.set()
    server = await serve(app)
    client = await connect(server)
    await client.send(GET)
    await client.response()
    port = server.ports[0]
    await server.aclose()
    assert await client.is_closed()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


@pytest.fixture(scope="module")
def warm_uvloop():
    """libuv opens a pipe for signals with its first loop, and keeps it as long as the process lives."""
    import uvloop

    uvloop.new_event_loop().close()


def test_uvloop_runs_without_being_installed(warm_uvloop):
    async def loop_module() -> str:
        return type(asyncio.get_running_loop()).__module__

    assert run(loop_module()).startswith("uvloop")
    assert not type(asyncio.get_event_loop_policy()).__module__.startswith("uvloop")


def test_an_inherited_socket_is_the_same_listener():
    parent = bind_listener("127.0.0.1", 0)
    child = inherit(os.dup(parent.fileno()))
    assert child.getsockname() == parent.getsockname()
    assert not child.get_inheritable()
    parent.close()
    child.close()
