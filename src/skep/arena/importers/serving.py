"""Request traces of serving systems: each format's columns to our `Request`.

azure-llm      TIMESTAMP, ContextTokens, GeneratedTokens        (Azure LLM inference 2023 and 2024, CSV)
mooncake       timestamp (ms), input_length, output_length, hash_ids                        (JSON lines)
burstgpt       Timestamp (s), Session ID, Elapsed time, Model, Request tokens, Response tokens, …  (CSV)
qwen-bailian   chat_id, parent_chat_id, timestamp (s), input_length, output_length, type, turn, hash_ids
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

from skep.arena.importers.request import Request, check_request
from skep.arena.importers.table import Row, csv_rows, json_rows
from skep.errors.arena import TraceInvalid

REQUESTS_MAX: Final = 50_000_000
"""Requests of one file; they are held to be sorted."""


def _moment_s(row: Row, column: str) -> float:
    text = row.text(column)
    head, dot, fraction = text.partition(".")
    zone = "+00:00" if fraction.endswith("+00:00") else ""
    digits = fraction.removesuffix("+00:00")[:6]
    try:
        moment = datetime.fromisoformat(f"{head}{dot}{digits}{zone}" if digits else head + zone)
    except ValueError:
        raise TraceInvalid(f"{row.where}: {column}: {text!r} is no time", where=row.where) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _azure(path: Path) -> Iterator[Request]:
    for row in csv_rows(path, ("TIMESTAMP", "ContextTokens", "GeneratedTokens")):
        yield Request(
            arrival_s=_moment_s(row, "TIMESTAMP"),
            input_tokens=row.whole("ContextTokens"),
            output_tokens=row.whole("GeneratedTokens"),
        )


def _mooncake(path: Path) -> Iterator[Request]:
    for row in json_rows(path, ("timestamp", "input_length", "output_length")):
        yield Request(
            arrival_s=row.number("timestamp") / 1000,
            input_tokens=row.whole("input_length"),
            output_tokens=row.whole("output_length"),
            prefix_hashes=row.numbers("hash_ids"),
        )


def _burstgpt(path: Path) -> Iterator[Request]:
    for row in csv_rows(path, ("Timestamp", "Model", "Request tokens", "Response tokens")):
        yield Request(
            arrival_s=row.number("Timestamp"),
            input_tokens=row.whole("Request tokens"),
            output_tokens=row.whole("Response tokens"),
            model=row.text("Model"),
            session=row.text("Session ID"),
        )


def _qwen(path: Path) -> Iterator[Request]:
    sessions: dict[str, str] = {}
    for row in json_rows(path, ("chat_id", "timestamp", "input_length", "output_length")):
        chat, parent = row.text("chat_id"), row.text("parent_chat_id")
        session = sessions[chat] = sessions.get(parent, chat)
        yield Request(
            arrival_s=row.number("timestamp"),
            input_tokens=row.whole("input_length"),
            output_tokens=row.whole("output_length"),
            session=session,
            prefix_hashes=row.numbers("hash_ids"),
        )


READERS: Final[Mapping[str, Callable[[Path], Iterator[Request]]]] = MappingProxyType(
    {"azure-llm": _azure, "mooncake": _mooncake, "burstgpt": _burstgpt, "qwen-bailian": _qwen}
)


def import_requests(path: Path, format_name: str) -> list[Request]:
    """Return a file's requests, sorted by arrival, the first at 0. Raises: TraceNotFound, TraceInvalid."""
    found: list[Request] = []
    for number, request in enumerate(READERS[format_name](path), start=1):
        if number > REQUESTS_MAX:
            raise TraceInvalid(f"{path}: more than {REQUESTS_MAX} requests", where=str(path))
        found.append(request)
    if not found:
        raise TraceInvalid(f"{path}: no requests", where=str(path))
    start_s = min(request.arrival_s for request in found)
    moved = [
        check_request(
            msgspec.structs.replace(one, arrival_s=round(one.arrival_s - start_s, 6)), f"{path}: request {at}"
        )
        for at, one in enumerate(found)
    ]
    return sorted(moved, key=lambda one: one.arrival_s)
