"""Our own worker's adapter against a server that may be anybody: the answers that a probe can give."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from skep.errors.hive import CannotGenerate, NotOurs
from skep.errors.web import PeerFailed
from skep.hive.adapter.skep import SkepAdapter
from skep.hive.endpoint import Endpoint
from skep.policy.health import Answer
from skep.web.client import make_client

HEALTH = {
    "instance": "n0nce",
    "status": "ready",
    "resident": True,
    "slots_total": 4,
    "slots_free": 3,
    "queue_depth": 1,
}
TOKEN = {"choices": [{"text": "x"}]}


class Peer:
    """An HTTP server of a few lines: a path answers (status, body), or never when it is None."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, object] | None] = {
            "/health": (200, HEALTH),
            "/v1/completions": (200, TOKEN),
        }
        self.heads: list[str] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            answer = self.answers.get(head.split()[1], (404, {}))
            if answer is None:
                await reader.read()
                return
            body = answer[1] if isinstance(answer[1], bytes) else json.dumps(answer[1]).encode()
            writer.write(
                b"HTTP/1.1 %d X\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (answer[0], len(body))
                + body
            )
            await writer.drain()
        finally:
            writer.close()


@pytest.fixture
async def peer() -> AsyncIterator[tuple[Peer, SkepAdapter, Endpoint]]:
    peer = Peer()
    server = await asyncio.start_server(peer.handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    endpoint = Endpoint(
        url=f"http://127.0.0.1:{port}", port=port, nonce="n0nce", pgid=1, model="m", slots=4, token="secret"
    )
    async with make_client(total_s=None) as client:
        yield peer, SkepAdapter(client, probe_s=0.3), endpoint
    server.close()
    await server.wait_closed()


async def test_a_well_worker_tells_its_load(peer) -> None:
    _, adapter, endpoint = peer
    look = await adapter.look(endpoint)
    assert look.answer is Answer.WELL
    assert (look.load.slots_total, look.load.slots_free, look.load.queue_depth) == (4, 3, 1)
    await adapter.prove(endpoint)


@pytest.mark.parametrize(
    ("health", "answer"),
    [
        ((200, HEALTH | {"instance": "another's"}), Answer.FOREIGN),
        ((200, b"<html>hello"), Answer.FOREIGN),
        ((404, {}), Answer.FOREIGN),
        ((200, HEALTH | {"error": "device_error", "status": "failed"}), Answer.DEVICE_ERROR),
        ((200, HEALTH | {"error": "decode_failed", "status": "failed"}), Answer.MUTE),
        ((500, HEALTH), Answer.MUTE),
        ((503, HEALTH | {"status": "loading", "resident": False}), Answer.WELL),
        ((503, HEALTH | {"status": "draining"}), Answer.WELL),
        ((503, HEALTH | {"status": "failed", "error": "decode_failed"}), Answer.MUTE),
        (None, Answer.SILENT),
    ],
)
async def test_every_answer_of_a_probe_has_its_meaning(health, answer: Answer, peer) -> None:
    server, adapter, endpoint = peer
    server.answers["/health"] = health
    assert (await adapter.look(endpoint)).answer is answer


async def test_a_closed_port_is_silence(peer) -> None:
    _, adapter, _ = peer
    closed = Endpoint(url="http://127.0.0.1:1", port=1, nonce="n0nce", pgid=1, model="m")
    assert (await adapter.look(closed)).answer is Answer.SILENT


@pytest.mark.parametrize(
    "answer",
    [(500, {"error": {"message": "no", "code": "decode_failed"}}), (200, {"choices": []}), (200, b"{")],
)
async def test_a_worker_that_cannot_generate_is_not_proved(answer, peer) -> None:
    server, adapter, endpoint = peer
    server.answers["/v1/completions"] = answer
    with pytest.raises(CannotGenerate):
        await adapter.prove(endpoint)


async def test_a_token_from_another_process_proves_nothing(peer) -> None:
    server, adapter, endpoint = peer
    server.answers["/health"] = (200, HEALTH | {"instance": "another's"})
    with pytest.raises(NotOurs):
        await adapter.prove(endpoint)


async def test_a_model_that_only_embeds_is_proved_by_a_vector(peer) -> None:
    server, adapter, endpoint = peer
    server.answers["/v1/completions"] = (400, {"error": {"message": "an embedding model"}})
    server.answers["/v1/embeddings"] = (200, {"data": [{"embedding": [0.1]}]})
    await adapter.prove(endpoint)


async def test_a_drain_tells_what_was_cancelled(peer) -> None:
    server, adapter, endpoint = peer
    server.answers["/drain"] = (200, {"drained": True, "jobs_cancelled": 2, "duration_ms": 7})
    drained = await adapter.drain(endpoint, deadline_s=1)
    assert (drained.force_stopped, drained.jobs_cancelled, drained.duration_ms) == (True, 2, 7)
    server.answers["/drain"] = (500, {})
    with pytest.raises(PeerFailed):
        await adapter.drain(endpoint, deadline_s=1)
    assert all("authorization: bearer secret" in head.lower() for head in server.heads)
