"""Every failure of a Litestar application reaches the client as one typed body."""

import msgspec
import pytest
from litestar import Litestar, get, post
from litestar.params import JSONBody

from skep.errors import Conflict
from skep.errors.runtime import QueueFull
from skep.web.client import make_client
from skep.web.errors import exception_handlers


class Wish(msgspec.Struct):
    count: int
    name: str


@get("/busy", sync_to_thread=False)
def busy() -> None:
    raise QueueFull("8 jobs wait", retry_after_s=2.4, waiting=8)


@get("/conflict", sync_to_thread=False)
def conflict() -> None:
    raise Conflict("no", pool_id="p", secret_object=object())


@get("/broken", sync_to_thread=False)
def broken() -> None:
    msg = "secret detail"
    raise RuntimeError(msg)


@post("/wish", sync_to_thread=False)
def wish(data: JSONBody[Wish]) -> None:
    pass


@pytest.fixture
async def client(serve):
    server = await serve(
        Litestar([busy, conflict, broken, wish], exception_handlers=exception_handlers(), logging_config=None)
    )
    async with make_client(f"http://127.0.0.1:{server.ports[0]}") as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "type_"),
    [
        ("GET", "/busy", 429, "queue_full", "rate_limit_error"),
        ("GET", "/conflict", 409, "conflict", "invalid_request_error"),
        ("GET", "/broken", 500, "internal", "server_error"),
        ("GET", "/nowhere", 404, "route_not_found", "invalid_request_error"),
        ("DELETE", "/busy", 405, "method_not_allowed", "invalid_request_error"),
    ],
)
async def test_failures_have_status_and_code(client, method, path, status, code, type_):
    async with client.request(method, path) as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"], error["type"]) == (status, code, type_)
        assert "secret" not in await response.text()


async def test_facts_and_headers_ride_along(client):
    async with client.get("/busy") as response:
        assert response.headers["retry-after"] == "2"
        assert (await response.json())["error"]["waiting"] == 8


async def test_a_bad_body_names_its_fields_and_not_its_values(client):
    async with client.post("/wish", json={"count": "secret", "name": "x"}) as response:
        assert response.status == 400
        assert (await response.json())["error"]["violations"][0]["field"] == "count"
        assert "secret" not in await response.text()
