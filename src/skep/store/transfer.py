"""A store's content as lines of JSON, to move it from one kind of store to another or to keep a copy."""

from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Iterable

import msgspec

from skep.errors import Conflict, InvalidInput
from skep.store.base import TXN_CHANGES_MAX, Compare, Put, Store

FORMAT = "skep-store-1"


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line."""

    format: str
    revision: int


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key; the value is base64."""

    key: str
    value: str


async def export_lines(store: Store) -> AsyncGenerator[bytes]:
    """Yield the store's content as of one moment; keys under a lease are left out, they mean nothing elsewhere."""
    snapshot = await store.list("")
    yield msgspec.json.encode(Header(FORMAT, snapshot.revision)) + b"\n"
    for item in snapshot.items:
        if not item.lease_id:
            yield msgspec.json.encode(Line(item.key, b64encode(item.value).decode())) + b"\n"


def read_lines(lines: Iterable[bytes]) -> list[Put]:
    """Read an export whole, so that a broken one changes nothing. Raises: InvalidInput, which names the line."""
    found: list[Put] = []
    for number, line in enumerate(lines, 1):
        try:
            if number == 1:
                if msgspec.json.decode(line, type=Header).format != FORMAT:
                    raise InvalidInput(f"line 1: this is not an export of format {FORMAT}")
                continue
            read = msgspec.json.decode(line, type=Line)
            found.append(Put(key=read.key, value=b64decode(read.value, validate=True)))
        except (msgspec.DecodeError, ValueError) as error:
            raise InvalidInput(f"line {number} is not a line of an export: {error}", line=number) from error
    return found


async def import_puts(store: Store, puts: list[Put], *, merge: bool = False) -> int:
    """Write keys into a store; return how many. Raises: Conflict when it is not empty (unless `merge`) or is written to meanwhile."""
    present = {item.key: item.revision for item in (await store.list("")).items if not item.lease_id}
    if present and not merge:
        raise Conflict(
            f"the store holds {len(present)} keys already: use an empty one, or --merge", keys=len(present)
        )
    for start in range(0, len(puts), TXN_CHANGES_MAX):
        batch = puts[start : start + TXN_CHANGES_MAX]
        compares = [Compare(key=put.key, revision=present.get(put.key, 0)) for put in batch]
        if not (await store.txn(compares, batch)).done:
            message = f"the store was written to meanwhile; {start} of {len(puts)} keys are in: stop its queens, and again with --merge"
            raise Conflict(message, written=start)
    return len(puts)
