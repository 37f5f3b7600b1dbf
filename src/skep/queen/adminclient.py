"""Asking a queen's admin API from a command: one call, its answer decoded, its error as ours."""

from typing import Any

import aiohttp
import msgspec

from skep.errors import SkepError, Unavailable
from skep.errors.web import PeerFailed, Unauthorized
from skep.web.client import make_client
from skep.wire.errors import decode_error

_NO_CONTENT, _UNAUTHORIZED, _ERRORS = 204, 401, 400


async def call(url: str, token: str, method: str, path: str, body: Any = None) -> Any:
    """Return the decoded answer, None when it is empty. Raises: Unavailable (nobody answers), Unauthorized, PeerFailed."""
    async with make_client(token=token or None) as client:
        data = None if body is None else msgspec.json.encode(body)
        headers = {} if data is None else {"content-type": "application/json"}
        try:
            async with client.request(method, url.rstrip("/") + path, data=data, headers=headers) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            message = f"no queen answers at {url} ({error or type(error).__name__}): start one, or give --url"
            raise Unavailable(message, url=url) from error
    if answer.status == _NO_CONTENT:
        return None
    if answer.status >= _ERRORS:
        raise _failure(url, answer.status, content)
    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise PeerFailed(
            f"{url} does not answer as a queen does: is this the admin port?", url=url
        ) from error


def _failure(url: str, status: int, content: bytes) -> SkepError:
    told = decode_error(content)
    if status == _UNAUTHORIZED:
        return Unauthorized(
            f"{url} asks for the admin token: give --token-file, or set SKEP_QUEEN_TOKEN_FILE"
        )
    return PeerFailed(told.message if told else f"{url} answers {status}", url=url, status=status)
