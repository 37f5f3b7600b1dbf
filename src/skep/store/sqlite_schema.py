"""The SQLite file's tables, and opening it so that nothing committed is ever lost."""

import os
import sqlite3
from pathlib import Path

from skep.errors.store import StoreBroken, StoreUnavailable

SCHEMA_VERSION = 1
BUSY_MS = 5_000

_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE items (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL, lease_id INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX items_by_lease ON items (lease_id) WHERE lease_id != 0;
CREATE TABLE leases (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl_s REAL NOT NULL, expires_s REAL NOT NULL);
CREATE TABLE history (revision INTEGER NOT NULL, key TEXT NOT NULL, value BLOB, PRIMARY KEY (revision, key));
INSERT INTO meta VALUES ('revision', 0), ('compacted', 0), ('boot_id', '');
"""


def open_file(path: Path) -> sqlite3.Connection:
    """Open or make the file, readable by its owner alone. Raises: StoreUnavailable, StoreBroken."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000
        )
    except (OSError, sqlite3.Error) as error:
        raise StoreUnavailable(f"cannot open the store {path}: {error}", path=str(path)) from error
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        _migrate(connection, path)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise StoreBroken(
            f"{path} is not a store ({error}); move it away to start anew", path=str(path)
        ) from error
    except StoreBroken:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables in an empty file; refuse a newer format."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            message = f"{path} has format {version}, newer than {SCHEMA_VERSION}: upgrade skep here"
            raise StoreBroken(message, path=str(path))
        if version == 0:
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    finally:
        connection.execute("COMMIT" if connection.in_transaction else "SELECT 1")
