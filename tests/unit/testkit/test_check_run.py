"""A run of `skep check`: budgets, bundles, and servers that are no servers."""

import asyncio
import xml.etree.ElementTree as ET
from contextlib import asynccontextmanager

import msgspec
import pytest

from skep.errors import InvalidConfig, InvalidInput
from skep.proof.reading import read_bundle
from skep.proof.records import Outcome
from skep.testkit.check.probe import Target
from skep.testkit.check.reference import Reference
from skep.testkit.check.report import write_junit
from skep.testkit.check.run import CheckOptions, check, normal_url
from skep.testkit.check.transcript import Transcript
from skep.testkit.check.verdict import Verdict


async def run(server: Reference, **options):
    return await check(CheckOptions(target=Target(url=server.url, patience_s=5), **options))


async def test_a_run_leaves_a_bundle_with_every_verdict_and_junit(tmp_path) -> None:
    async with Reference(faults=frozenset({"stream.one-done"})) as server:
        report = await run(server, only=("stream",), out=str(tmp_path))
    assert report.model == "reference", "the first that the server lists"
    view = read_bundle(tmp_path / "check" / report.bundle.rpartition("/")[2])
    assert view.outcome is Outcome.FAILED
    assert {record.id for record in view.scenarios} == {one.clause for one in report.findings}
    write_junit(report, tmp_path / "junit.xml")
    cases = ET.parse(tmp_path / "junit.xml").getroot().iter("testcase")
    failed = [case.get("name") for case in cases if case.find("failure") is not None]
    assert any(name.startswith("stream.one-done:") for name in failed)


async def test_a_broken_should_fails_a_strict_run_only() -> None:
    async with Reference(faults=frozenset({"errors.unknown-model"})) as server:
        report = await run(server, only=("errors.unknown-model",))
    assert report.failures(is_strict=False) == []
    assert [one.clause for one in report.failures(is_strict=True)] == ["errors.unknown-model"]


async def test_what_the_budget_does_not_reach_is_said() -> None:
    async with Reference() as server:
        report = await run(server, only=("endpoints",), budget_s=1e-9)
    assert {one.verdict for one in report.findings} == {Verdict.NOT_OBSERVABLE}
    assert "budget" in report.findings[0].detail


async def test_without_chaos_nothing_floods() -> None:
    async with Reference() as server:
        report = await run(server, only=("limits.full-is-told",))
    assert "--chaos" in report.findings[0].detail


async def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(InvalidInput, match="Is a server running there"):
        await check(CheckOptions(target=Target(url="http://127.0.0.1:9", patience_s=2)))


@asynccontextmanager
async def raw_server(reply: bytes):
    """A server that says the same to everybody, and hangs up."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reply)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # The check went first: as it may.
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


def reply(body: bytes, kind: str = "application/json") -> bytes:
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{}",
        b"[]",
        b"null",
        b'{"choices": []}',
        b'{"choices": [7]}',
        b'{"choices": [{"message": 7}]}',
        b'{"choices": [{"delta": []}], "usage": "many"}',
        b'data: {"choices": 7}\n\ndata: [DONE]\n\n',
        b"data: [DONE]\n\n",
        b"data: \xff\xfe\n\n",
    ],
)
async def test_nonsense_is_a_verdict_and_never_an_error_of_ours(body: bytes) -> None:
    kind = "text/event-stream" if body.startswith(b"data") else "application/json"
    async with raw_server(reply(body, kind)) as url:
        target = Target(url=url, model="m", patience_s=2)
        clauses = ("endpoints", "stream", "truncation", "errors", "determinism")
        report = await check(CheckOptions(target=target, only=clauses))
    verdicts = {one.clause: one.verdict for one in report.findings}
    assert verdicts["stream.one-finish"] is Verdict.FAIL
    assert verdicts["endpoints.chat"] is Verdict.FAIL


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://h:1", "http://h:1"),
        ("http://h:1/", "http://h:1"),
        ("http://h:1/v1/", "http://h:1"),
        ("https://h/api/v1", "https://h/api"),
    ],
)
def test_a_url_may_end_in_v1(given: str, url: str) -> None:
    assert normal_url(given) == url


@pytest.mark.parametrize("given", ["h:1", "ftp://h", "http://", "127.0.0.1:8080"])
def test_what_is_no_url_is_refused(given: str) -> None:
    with pytest.raises(InvalidConfig):
        normal_url(given)


def test_the_key_is_never_shown() -> None:
    assert "secret" not in repr(Target(url="http://h", api_key="secret"))


CHUNK = {"id": "c", "choices": [{"index": 0, "delta": {"content": "a"}}]}


def transcript(*events: object) -> Transcript:
    found = Transcript(request="", status=200, content_type="", headers={})
    for one in events:
        data = one if isinstance(one, bytes) else msgspec.json.encode(one)
        found.feed(b"data: " + data + b"\n\n", 0.0)
    return found


def test_a_stream_is_whole_only_with_one_finish_and_one_end_at_its_end() -> None:
    last = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    assert transcript(CHUNK, last, b"[DONE]").is_whole
    for events in (
        (),
        (CHUNK,),
        (CHUNK, last),
        (CHUNK, b"[DONE]"),
        (last, b"[DONE]", CHUNK),
        (last, last, b"[DONE]"),
    ):
        assert not transcript(*events).is_whole, events
