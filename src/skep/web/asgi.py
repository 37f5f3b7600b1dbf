"""The few verbs that a plain ASGI handler needs: read a body, answer whole, answer with an error."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from skep.wire.errors import as_skep, error_body, error_headers

JSON = b"application/json"

Send = Callable[[Any], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]
RawHeaders = Sequence[tuple[bytes, bytes]]


class ClientGone(Exception):
    """The client left before its request was whole; there is nobody to answer."""


async def read_body(receive: Receive) -> bytes:
    """Return the whole body; its size is bounded by the server's limits. Raises: ClientGone."""
    message = await receive()
    if message["type"] != "http.request":
        raise ClientGone
    if not message.get("more_body"):
        return bytes(message.get("body", b""))
    parts = [message.get("body", b"")]
    while message.get("more_body"):
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        parts.append(message.get("body", b""))
    return b"".join(parts)


async def send_whole(
    send: Send, status: int, body: bytes, *, content_type: bytes = JSON, headers: RawHeaders = ()
) -> None:
    """Answer with one whole body."""
    await send({
        "type": "http.response.start",
        "status": status,
        "headers": [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers],
    })  # fmt: skip
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: BaseException, *, code: str | None = None) -> None:
    """Answer with an error's status, headers and body. `code` as in `wire.errors.error_object`."""
    headers = [(name.encode(), value.encode()) for name, value in error_headers(error)]
    await send_whole(send, as_skep(error).http_status, error_body(error, code=code), headers=headers)
