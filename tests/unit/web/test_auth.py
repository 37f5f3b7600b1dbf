"""Who may call, and that a token is never shown."""

import json

import pytest

from skep.errors import InvalidConfig
from skep.web.asgi import send_whole
from skep.web.auth import BearerAuth, bearer_token, fingerprint, is_same_token, require_token_off_loopback


async def ok(scope, receive, send):
    await send_whole(send, 200, b"{}")


async def call(app, path="/x", method="GET", headers=()):
    sent = []

    async def send(message):
        sent.append(message)

    await app({"type": "http", "method": method, "path": path, "headers": list(headers)}, None, send)
    return sent[0]["status"], sent


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 401),
        ([(b"authorization", b"Bearer wrong")], 401),
        ([(b"authorization", b"Basic secret")], 401),
        ([(b"authorization", b"Bearer " + b"s" * 5000)], 401),
        ([(b"authorization", b"Bearer s\xff")], 401),
        ([(b"authorization", b"Bearer secret")], 200),
        ([(b"authorization", b"bearer secret ")], 200),
    ],
)
async def test_only_the_right_token_passes(headers, status):
    assert (await call(BearerAuth(ok, "secret"), headers=headers))[0] == status


async def test_open_routes_and_servers_without_a_token_ask_for_none():
    assert (await call(BearerAuth(ok, "secret"), "/health"))[0] == 200
    assert (await call(BearerAuth(ok, "secret"), "/health", "POST"))[0] == 401
    assert (await call(BearerAuth(ok, None)))[0] == 200


async def test_a_refusal_names_the_next_step_and_shows_no_token():
    _, sent = await call(BearerAuth(ok, "secret"), headers=[(b"authorization", b"Bearer guess")])
    body = sent[1]["body"]
    assert json.loads(body)["error"]["type"] == "authentication_error"
    assert b"guess" not in body
    assert b"secret" not in body
    assert (b"www-authenticate", b"Bearer") in sent[0]["headers"]


def test_a_log_may_hold_six_hex_digits():
    assert fingerprint("secret") == "2bb80d"
    assert is_same_token("a", "a")
    assert not is_same_token("a", "ab")
    assert bearer_token([(b"x", b"y")]) == ""


def test_binding_the_network_needs_a_token():
    require_token_off_loopback("127.0.0.1", None)
    require_token_off_loopback("0.0.0.0", "t")
    with pytest.raises(InvalidConfig):
        require_token_off_loopback("0.0.0.0", "")
