"""The SQL of transactions and rows; used in the store's thread alone."""

import sqlite3
from collections.abc import Sequence
from types import TracebackType

from skep.store.base import Change, Item, Put

HISTORY_REVISIONS_MAX = 10_000
"""How many revisions a watcher may be behind."""


class Transaction:
    """BEGIN … COMMIT, rolled back on any error."""

    def __init__(self, connection: sqlite3.Connection, *, writing: bool = True) -> None:
        self._connection = connection
        self._begin = "BEGIN IMMEDIATE" if writing else "BEGIN"

    def __enter__(self) -> sqlite3.Connection:
        self._connection.execute(self._begin)
        return self._connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.execute("COMMIT" if kind is None else "ROLLBACK")


def item_of(row: tuple[str, bytes, int, int]) -> Item:
    """Return the item of a row."""
    key, value, revision, lease_id = row
    return Item(key=key, value=value, revision=revision, lease_id=lease_id)


def find(connection: sqlite3.Connection, key: str) -> Item | None:
    """Return a key's item, or None."""
    row = connection.execute(
        "SELECT key, value, revision, lease_id FROM items WHERE key = ?", (key,)
    ).fetchone()
    return item_of(row) if row else None


def revision_of(connection: sqlite3.Connection) -> int:
    """Return the store's revision."""
    return int(connection.execute("SELECT value FROM meta WHERE name = 'revision'").fetchone()[0])


def apply_changes(connection: sqlite3.Connection, changes: Sequence[Change | str]) -> int:
    """Make changes (a bare key is a deletion) under the next revision, and remember them for watchers."""
    revision = revision_of(connection) + 1
    effective = 0
    for change in changes:
        if isinstance(change, Put):
            row = (change.key, change.value, revision, change.lease_id)
            connection.execute("INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)", row)
            connection.execute("INSERT INTO history VALUES (?, ?, ?)", (revision, change.key, change.value))
            effective += 1
            continue
        key = change if isinstance(change, str) else change.key
        if connection.execute("DELETE FROM items WHERE key = ?", (key,)).rowcount:
            connection.execute("INSERT INTO history VALUES (?, ?, NULL)", (revision, key))
            effective += 1
    if not effective:
        return revision - 1
    connection.execute("UPDATE meta SET value = ? WHERE name = 'revision'", (revision,))
    if revision % 100 == 0 and revision > HISTORY_REVISIONS_MAX:
        oldest = revision - HISTORY_REVISIONS_MAX
        connection.execute("DELETE FROM history WHERE revision <= ?", (oldest,))
        connection.execute("UPDATE meta SET value = ? WHERE name = 'compacted'", (oldest,))
    return revision
