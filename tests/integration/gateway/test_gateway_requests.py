"""What a client may send: every proper form of a request, and what becomes of the others."""

import json

import pytest
from tests.integration.gateway.conftest import (
    DONE,
    STREAM,
    Upstream,
    chunk,
    error,
    event,
    plain,
    request,
    split,
    streaming,
)

from skep.queen.gate import OpenGate, Visitor
from skep.queen.hosts import HostCheck


async def test_a_chunked_request_body_is_joined(rig):
    head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n"
    body = b'{"model":"m","prompt":"hi"}'
    sent = head + b"transfer-encoding: chunked\r\n\r\n" + chunk(body[:5]) + chunk(body[5:]) + b"0\r\n\r\n"
    async with Upstream(plain) as up:
        rig.serve(up)
        assert split(await rig.raw(sent))[0] == 200
        assert up.bodies == [body]


async def test_expect_continue_is_answered_before_the_body(rig):
    async with Upstream(plain) as up:
        rig.serve(up)
        whole_request = request(extra=b"expect: 100-continue\r\n")
        head, _, body = whole_request.partition(b"\r\n\r\n")
        reader, writer = await rig.open()
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_http_1_0_gets_a_stream_that_ends_with_the_connection(rig):
    body = STREAM
    head = (
        b"POST /v1/completions HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        % len(body)
    )
    async with Upstream(streaming("a")) as up:
        rig.serve(up)
        rig.service._hosts = HostCheck(is_strict=False)
        status, answer_head, answer = split(await rig.raw(head + body))
    assert status == 200
    assert b"transfer-encoding" not in answer_head
    assert answer == event("a") + DONE


HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
BAD = {
    "te_and_cl": (HEAD + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n", 400),
    "cl_and_te": (HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "two_lengths": (HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello", 400),
    "gzip_chunked": (HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "space_before_colon": (HEAD + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    "bad_chunk_size": (HEAD + b"transfer-encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", 400),
    "bad_chunk_end": (HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n", 400),
    "folded_header": (HEAD + b"x: a\r\n b\r\n\r\n", 400),
    "bare_lf": (b"POST /v1/completions HTTP/1.1\nhost: localhost\n\n", 400),
    "no_host": (b"GET /v1/models HTTP/1.1\r\n\r\n", 400),
    "two_hosts": (b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nhost: b\r\n\r\n", 400),
    "foreign_host": (b"GET /v1/models HTTP/1.1\r\nhost: evil.example\r\n\r\n", 400),
    "absolute_target": (b"GET http://x/v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
    "http2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "connect": (b"CONNECT a:1 HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "route": (b"GET /nope HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 404),
    "method": (b"GET /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 405),
    "type": (b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n{}", 415),
    "encoding": (HEAD + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}", 415),
    "announced_too_large": (HEAD + b"content-length: 100001\r\n\r\n", 413),
    "chunked_too_large": (HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunk(b"x" * 100_001), 413),
    "head_too_large": (HEAD + b"x: " + b"y" * 9000 + b"\r\n\r\n", 431),
    "endless_head": (HEAD + b"x: " + b"y" * 9000, 431),
    "many_headers": (HEAD + b"".join(b"x%d: 1\r\n" % n for n in range(120)) + b"\r\n", 431),
    "expectation": (HEAD + b"expect: a pony\r\ncontent-length: 2\r\n\r\n", 400),
    "not_json": (request(b"model=m"), 400),
    "not_an_object": (request(b"[1]"), 400),
    "no_model": (request(b"{}"), 400),
    "model_is_a_number": (request(b'{"model":1}'), 400),
    "not_utf8": (request(b'{"model":"\xff"}'), 400),
    "slow_head": (HEAD, 408),
    "slow_body": (HEAD + b"content-length: 50\r\n\r\n{", 408),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
async def test_what_is_no_proper_request_is_refused_with_a_typed_error_and_never_forwarded(rig, name):
    data, status = BAD[name]
    async with Upstream(plain) as up:
        rig.serve(up)
        answer = await rig.raw(data)
        assert up.bodies == []
    assert split(answer)[0] == status, answer
    assert error(answer)["type"] == "invalid_request_error" if status != 408 else "server_error"
    assert rig.outcomes == []


async def test_models_health_head_and_options(rig):
    async with Upstream(plain) as up:
        rig.serve(up, aliases=("nick",))
        get = b"%b %b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        listed = json.loads(split(await rig.raw(get % (b"GET", b"/v1/models")))[2])
        assert [one["id"] for one in listed["data"]] == ["m"]
        assert json.loads(split(await rig.raw(get % (b"GET", b"/v1/models/m")))[2])["id"] == "m"
        assert split(await rig.raw(get % (b"GET", b"/v1/models/x")))[0] == 404
        assert split(await rig.raw(get % (b"GET", b"/health")))[2] == b'{"status":"ok"}'
        status, head, body = split(await rig.raw(get % (b"HEAD", b"/v1/models")))
        assert (status, body) == (200, b"")
        assert b"content-length: 0" not in head
        status, head, body = split(await rig.raw(get % (b"OPTIONS", b"/v1/chat/completions")))
        assert (status, body) == (204, b"")
        assert b"allow: post, options" in head
        assert split(await rig.post(b'{"model":"nick","prompt":"x"}'))[0] == 200


async def test_an_offer_to_speak_http2_is_ignored_and_answered_in_1_1(rig):
    async with Upstream(plain) as up:
        rig.serve(up)
        offer = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
        answer = await rig.post(extra=offer, close=False)
        assert split(answer)[0] == 200
        assert len(up.bodies) == 1


async def test_a_worker_is_told_whose_request_it_is_by_the_key_s_id_and_never_by_the_client(rig):
    class Known(OpenGate):
        def visitor(self, token):
            return Visitor(key_id="k1") if token == "sk" else super().visitor(token)

    rig.service._gate = Known()
    async with Upstream(plain) as up:
        rig.serve(up)
        await rig.post(extra=b"authorization: Bearer sk\r\nx-skep-client: somebody-else\r\n")
        await rig.post(extra=b"x-skep-client: somebody-else\r\n")
    with_key, without = up.heads
    assert b"x-skep-client: k1\r\n" in with_key
    assert b"somebody-else" not in with_key
    assert b"x-skep-client" not in without
