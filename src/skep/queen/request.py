"""What is exchanged: a whole request, the side that asked, and what all exchanges of a gateway share."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from skep.errors import SkepError
from skep.queen.dispatch import Dispatcher
from skep.queen.fields import Fields
from skep.queen.options import GatewayOptions
from skep.queen.upstream import Upstreams


class Client(Protocol):
    """The side that asked. After an `end_…` or `refuse` the exchange tells it nothing more."""

    def send_head(self, status: int, headers: list[tuple[bytes, bytes]], *, length: int | None) -> None:
        """Send the answer's head; a length of None is an answer of unknown length."""
        ...

    def send_body(self, data: bytes) -> None:
        """Send a part of the body."""
        ...

    def end_whole(self) -> None:
        """The answer is whole."""
        ...

    def end_broken(self, last: bytes) -> None:
        """The answer is not whole: send the last bytes and end so that nobody can think that it is."""
        ...

    def refuse(self, error: SkepError, extra: dict[str, object] | None) -> None:
        """Answer with an error; nothing has been sent yet."""
        ...


class Request(msgspec.Struct, frozen=True):
    """A whole request as it goes on to a replica."""

    request_id: str
    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    fields: Fields
    priority: int = 0
    key_id: str = ""
    explain: bool = False


class Shared(msgspec.Struct, frozen=True):
    """What all exchanges of a gateway share."""

    clock: Callable[[], float]
    options: GatewayOptions
    dispatcher: Dispatcher
    upstreams: Upstreams
