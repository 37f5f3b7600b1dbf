"""Recorded requests for serving: Azure's LLM traces, Mooncake's, and our own lines; read as a stream.

Formats: Azure LLM 2023/24 (CSV: TIMESTAMP, ContextTokens, GeneratedTokens), Mooncake (JSON lines: timestamp in ms,
input_length, output_length, hash_ids of 512-token blocks), and `TracedRequest` itself as JSON lines.
"""

import csv
import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

import msgspec

from skep.errors.arena import TraceInvalid, TraceNotFound, TraceUnreadable

TOKENS_MAX: Final = 10_000_000
BLOCKS_MAX: Final = 65_536
LINE_CHARS_MAX: Final = 1_000_000
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


class _Mooncake(msgspec.Struct):
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int] = []


def read_requests(path: Path) -> Iterator[TracedRequest]:
    """Yield a file's requests in order, from second 0, whatever of the known formats it has.

    Raises: TraceNotFound, TraceUnreadable, TraceInvalid (with file and line).
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            yield from _checked(_parsed(file, path.name), path.name)
    except FileNotFoundError:
        raise TraceNotFound(f"no request trace at {path}", path=str(path)) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceUnreadable(f"{path.name} cannot be read as a request trace: {error}") from error


def _parsed(file: TextIO, name: str) -> Iterator[TracedRequest]:
    first = file.readline(LINE_CHARS_MAX)
    file.seek(0)
    if first.lstrip().startswith("{"):
        is_mooncake = "input_length" in first
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _mooncake(line, f"{name}:{number}") if is_mooncake else _own(line, f"{name}:{number}")
        return
    columns = [column.strip() for column in first.split(",")]
    if columns[:3] != ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]:
        raise TraceUnreadable(
            f"{name}: not a request trace that is known (Azure LLM, Mooncake or our own lines); it starts {first[:60]!r}"
        )
    for number, row in enumerate(csv.DictReader(file), start=2):
        yield _azure(row, f"{name}:{number}")


def _own(line: str, where: str) -> TracedRequest:
    try:
        return msgspec.json.decode(line, type=TracedRequest)
    except msgspec.MsgspecError as error:
        raise TraceInvalid(f"{where}: {error}", where=where) from error


def _mooncake(line: str, where: str) -> TracedRequest:
    try:
        found = msgspec.json.decode(line, type=_Mooncake)
    except msgspec.MsgspecError as error:
        raise TraceInvalid(f"{where}: {error}", where=where) from error
    return TracedRequest(
        at_s=found.timestamp / 1000,
        prompt_tokens=found.input_length,
        output_tokens=found.output_length,
        blocks=tuple(found.hash_ids),
    )


def _azure(row: dict[str, str], where: str) -> TracedRequest:
    try:
        # Azure writes seven digits after the second, one more than Python reads.
        whole, _, fraction = row["TIMESTAMP"].partition(".")
        digits, zone = fraction[:6], fraction[7:]
        at = datetime.fromisoformat(f"{whole}.{digits.ljust(6, '0')}{zone}" if fraction else whole)
        return TracedRequest(
            at_s=at.timestamp() if at.tzinfo else at.replace(tzinfo=UTC).timestamp(),
            prompt_tokens=int(row["ContextTokens"]),
            output_tokens=int(row["GeneratedTokens"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise TraceInvalid(f"{where}: not a row of an Azure LLM trace: {error}", where=where) from error


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
