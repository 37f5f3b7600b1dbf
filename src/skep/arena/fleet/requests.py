"""Recorded requests for serving, read as a stream: what a queen recorded, what the arena imported, or a project's file.

A queen's recording is `TracedRequest` as JSON lines; the other formats are known to `skep.arena.importers`.
"""

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from skep.arena.importers.request import Request
from skep.arena.importers.request import read_requests as imported_requests
from skep.arena.importers.serving import READERS
from skep.errors.arena import TraceInvalid, TraceNotFound, TraceUnreadable

TOKENS_MAX: Final = 10_000_000
BLOCKS_MAX: Final = 65_536
LINE_BYTES_MAX: Final = 1_000_000
MOONCAKE_BLOCK_TOKENS: Final = 512


class TracedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `blocks` name its prompt's leading blocks of `block_tokens`, alike where the text is alike."""

    at_s: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    block_tokens: int = MOONCAKE_BLOCK_TOKENS
    session: str = ""
    priority: int = 0


def read_requests(path: Path) -> Iterator[TracedRequest]:
    """Yield a file's requests in order, from second 0, whatever of the known formats it has.

    Raises: TraceNotFound, TraceUnreadable, TraceInvalid (with file and line).
    """
    return _checked(_opened(path), path.name)


def _opened(path: Path) -> Iterator[TracedRequest]:
    try:
        with path.open("rb") as file:
            first = file.readline(LINE_BYTES_MAX)
    except FileNotFoundError:
        raise TraceNotFound(f"no request trace at {path}", path=str(path)) from None
    except OSError as error:
        raise TraceUnreadable(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    if first.lstrip().startswith(b"{") and b'"at_s"' in first:
        return _recorded(path)
    if first.lstrip().startswith(b"{") and b'"arrival_s"' in first:
        return map(_of_imported, imported_requests(path))
    for mark, reader in MARKS.items():
        if mark in first:
            return map(_of_imported, READERS[reader](path))
    raise TraceUnreadable(
        f"{path.name}: not a request trace that is known; it starts {first[:60]!r}", path=str(path)
    )


MARKS: Final = {
    b"ContextTokens": "azure-llm",
    b"Request tokens": "burstgpt",
    b'"chat_id"': "qwen-bailian",
    b'"input_length"': "mooncake",
}
"""What the first line of each project's own format holds."""


def _of_imported(request: Request) -> TracedRequest:
    blocks = request.prefix_hashes
    return TracedRequest(
        at_s=request.arrival_s,
        prompt_tokens=request.input_tokens,
        output_tokens=request.output_tokens,
        blocks=blocks,
        block_tokens=max(-(-request.input_tokens // len(blocks)), 1) if blocks else 1,
        session=request.session,
    )


def _recorded(path: Path) -> Iterator[TracedRequest]:
    """Yield the lines that the queen recorded."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path.name}:{number}"
            try:
                yield msgspec.json.decode(line, type=TracedRequest)
            except msgspec.MsgspecError as error:
                raise TraceInvalid(f"{where}: {error}", where=where) from error


def _checked(requests: Iterable[TracedRequest], name: str) -> Iterator[TracedRequest]:
    """Yield requests with times from 0, refusing what cannot be."""
    start_s: float | None = None
    last_s = 0.0
    for number, request in enumerate(requests):
        if start_s is None:
            start_s = request.at_s
        at_s = request.at_s - start_s
        fits = 0 <= request.prompt_tokens <= TOKENS_MAX and 0 <= request.output_tokens <= TOKENS_MAX
        if not fits or len(request.blocks) > BLOCKS_MAX or request.block_tokens < 1 or not at_s < 2**40:
            raise TraceInvalid(f"{name}: request {number} has numbers outside their range", where=str(number))
        if at_s < last_s:
            raise TraceInvalid(
                f"{name}: request {number} is earlier than the one before it", where=str(number)
            )
        last_s = at_s
        yield msgspec.structs.replace(request, at_s=at_s)


def generated_requests(
    count: int,
    rate_per_s: float,
    seed: int,
    *,
    prompt_tokens: int = 512,
    output_tokens: int = 128,
    shared_prefixes: int = 0,
) -> Iterator[TracedRequest]:
    """Yield requests with exponential gaps and sizes around the given means (log-normal, sigma 0.6).

    With `shared_prefixes` each prompt starts with one of so many prefixes, the popular ones more often (Zipf).
    """
    rng = random.Random(seed)  # noqa: S311 - a simulation, seeded on purpose
    weights = [1 / (rank + 1) for rank in range(shared_prefixes)]
    at_s = 0.0
    for number in range(count):
        prompt = max(1, round(prompt_tokens * rng.lognormvariate(-0.18, 0.6)))
        blocks: tuple[int, ...] = ()
        if shared_prefixes:
            prefix = rng.choices(range(shared_prefixes), weights)[0]
            whole = max(1, prompt // 64)
            blocks = (
                *(prefix * 1000 + at for at in range((whole + 1) // 2)),
                *(-number * 1000 - at for at in range(whole // 2)),
            )
        yield TracedRequest(
            at_s=at_s,
            prompt_tokens=prompt,
            output_tokens=max(1, round(output_tokens * rng.lognormvariate(-0.18, 0.6))),
            blocks=blocks,
            block_tokens=64,
        )
        at_s += rng.expovariate(rate_per_s)
