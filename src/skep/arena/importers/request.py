"""One request of a request trace, in our own form: a JSON object a line, sorted by arrival.

`prefix_hashes` name the blocks of the prompt, so that shared prefixes are equal; `session` groups the turns of a
conversation. Both may be empty.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from skep.errors.arena import TraceInvalid, TraceNotFound

TOKENS_MAX: Final = 100_000_000
"""More tokens than any model's context; a larger number is a mistake in the file."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """When it came (seconds after the first), what it asked for, and what it got."""

    arrival_s: float
    input_tokens: int
    output_tokens: int
    model: str = ""
    session: str = ""
    prefix_hashes: tuple[int, ...] = ()


def check_request(request: Request, where: str) -> Request:
    """Return a request that is possible. Raises: TraceInvalid."""
    if not 0 <= request.arrival_s < float("inf"):
        raise TraceInvalid(f"{where}: arrives at {request.arrival_s} s", where=where)
    for name in ("input_tokens", "output_tokens"):
        tokens = getattr(request, name)
        if not 0 <= tokens <= TOKENS_MAX:
            raise TraceInvalid(f"{where}: {name}: {tokens}", where=where)
    return request


def read_requests(path: Path) -> Iterator[Request]:
    """Yield the requests of a file in our form. Raises: TraceNotFound, TraceInvalid."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise TraceNotFound(f"no request trace at {path}", path=str(path)) from None
    last_s = 0.0
    with file:
        for number, line in enumerate(file, start=1):
            where = f"{path}:{number}"
            try:
                request = check_request(msgspec.json.decode(line, type=Request), where)
            except msgspec.DecodeError as error:
                raise TraceInvalid(f"{where}: {error}", where=where) from error
            if request.arrival_s < last_s:
                raise TraceInvalid(f"{where}: arrives before the request before it", where=where)
            last_s = request.arrival_s
            yield request


def write_requests(path: Path, requests: Iterable[Request]) -> int:
    """Write requests; the file appears whole or not at all. Returns how many."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    count = 0
    try:
        with temporary.open("wb") as file:
            for request in requests:
                file.write(msgspec.json.encode(request) + b"\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count
