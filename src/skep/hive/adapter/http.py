"""The HTTP that adapters share: bounded, and every failure of the other side is a value or one typed error."""

import asyncio
from typing import Any, TypeVar

import aiohttp
import msgspec

from skep.errors.hive import CannotGenerate
from skep.errors.web import PeerFailed
from skep.hive.adapter.base import PROOF_PROMPT, PROOF_S_MAX
from skep.hive.endpoint import Endpoint
from skep.wire.errors import decode_error

T = TypeVar("T")

BODY_BYTES_MAX = 1024 * 1024
_NOT_HERE = frozenset({400, 404, 405, 422, 501})


def headers(endpoint: Endpoint) -> dict[str, str]:
    """Return the bearer token's header, when the worker asks for one."""
    return {"authorization": f"Bearer {endpoint.token}"} if endpoint.token else {}


async def ask(
    client: aiohttp.ClientSession,
    endpoint: Endpoint,
    path: str,
    *,
    body: Any = None,
    limit_s: float,
) -> tuple[int, bytes]:
    """GET, or POST a JSON body; return status and body. Raises: PeerFailed (no answer in time, or none at all)."""
    method = "GET" if body is None else "POST"
    data = None if body is None else msgspec.json.encode(body)
    sent = headers(endpoint) | ({} if body is None else {"content-type": "application/json"})
    try:
        async with (
            asyncio.timeout(limit_s),
            client.request(
                method, f"{endpoint.url}{path}", data=data, headers=sent, allow_redirects=False
            ) as reply,
        ):
            return reply.status, await reply.content.read(BODY_BYTES_MAX)
    except TimeoutError as error:
        raise PeerFailed(
            f"{endpoint.url}{path} did not answer within {limit_s:g} s", url=endpoint.url
        ) from error
    except aiohttp.ClientError as error:
        raise PeerFailed(
            f"{endpoint.url}{path}: {error or type(error).__name__}", url=endpoint.url
        ) from error


class _Completion(msgspec.Struct, frozen=True):
    choices: tuple[Any, ...] = ()


class _Vectors(msgspec.Struct, frozen=True):
    data: tuple[Any, ...] = ()


async def prove_by_openai(client: aiohttp.ClientSession, endpoint: Endpoint) -> None:
    """Ask for one token; a model that only embeds is asked for a vector. Raises: CannotGenerate."""
    body = {"model": endpoint.model, "prompt": PROOF_PROMPT, "max_tokens": 1, "temperature": 0}
    status, answer = await _try(client, endpoint, "/v1/completions", body)
    if status == 200 and _decode(answer, _Completion).choices:  # noqa: PLR2004 - OK
        return
    if status in _NOT_HERE:
        embed = {"model": endpoint.model, "input": PROOF_PROMPT}
        other, vectors = await _try(client, endpoint, "/v1/embeddings", embed)
        if other == 200 and _decode(vectors, _Vectors).data:  # noqa: PLR2004 - OK
            return
    error = decode_error(answer)
    said = f"{error.code}: {error.message}" if error else answer[:200].decode("utf-8", "replace")
    raise CannotGenerate(
        f"{endpoint.url} answers {status} to a request for one token: {said}",
        url=endpoint.url,
        cause=str(error.code or "") if error else "",
    )


async def _try(client: aiohttp.ClientSession, endpoint: Endpoint, path: str, body: Any) -> tuple[int, bytes]:
    try:
        return await ask(client, endpoint, path, body=body, limit_s=PROOF_S_MAX)
    except PeerFailed as error:
        raise CannotGenerate(str(error), url=endpoint.url) from error


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CannotGenerate(f"not an answer of OpenAI's shape: {error}") from error
