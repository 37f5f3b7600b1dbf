"""The shared client: token, limits, no proxies from the environment."""

from skep.web.asgi import send_whole
from skep.web.auth import BearerAuth
from skep.web.client import describe_token, make_client


async def ok(scope, receive, send):
    await send_whole(send, 200, b'{"ok":true}')


async def test_a_client_sends_its_token_and_ignores_proxies(serve, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    server = await serve(BearerAuth(ok, "secret"))
    base = f"http://127.0.0.1:{server.ports[0]}"
    async with make_client(base, token="secret") as client, client.get("/x") as response:
        assert await response.json() == {"ok": True}
    async with make_client(base) as client, client.get("/x") as response:
        assert response.status == 401


def test_a_log_names_a_token_by_its_fingerprint():
    assert describe_token("secret") == "sha256:2bb80d"
    assert describe_token(None) == "none"
