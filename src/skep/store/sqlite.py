"""The default store: one SQLite file in WAL mode, one thread, no other moving part.

Lease terms run on the machine's monotonic clock, which all processes share, so a clock that jumps expires nothing;
after a reboot every lease gets its term anew, as etcd does after a change of leader. Watchers in this process are
woken by each commit; commits of other processes are seen within `TICK_S`.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from skep.errors.store import LeaseLost, StoreUnavailable, WatchCompacted
from skep.store.base import Change, Committed, Compare, Event, Item, Put, Snapshot
from skep.store.limits import check_key, check_ttl, check_txn
from skep.store.sqlite_rows import Transaction, apply_changes, find, item_of, revision_of
from skep.store.sqlite_schema import open_file

T = TypeVar("T")

TICK_S = 0.5
"""How often leases are expired and other processes' commits are looked for."""

WATCH_REVISIONS_MAX = 500
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class SqliteStore:
    """`Store` over one file. Enter it before use; every call runs in one worker thread."""

    def __init__(
        self, path: Path, *, clock: Callable[[], float] = time.monotonic, tick_s: float = TICK_S
    ) -> None:
        self.path = path
        self._clock = clock
        self._tick_s = tick_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._connection: sqlite3.Connection | None = None
        self._changed = asyncio.Event()
        self._data_version = 0
        self._ticker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Open the file and start expiring leases. Raises: StoreUnavailable, StoreBroken."""
        try:
            self._connection = await self._in_thread(lambda: open_file(self.path))
            await self._in_thread(self._renew_after_reboot)
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        self._ticker = asyncio.create_task(self._tick_for_ever(), name="store-ticker")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the thread and close the file."""
        if self._ticker is not None:
            self._ticker.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticker
        connection, self._connection = self._connection, None
        if connection is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, connection.close)
        self._thread.shutdown(wait=True)
        self._announce()

    async def get(self, key: str) -> Item | None:
        """Return the key's item, or None. Raises: StoreUnavailable."""
        check_key(key)
        return await self._in_thread(lambda: find(self._open, key))

    async def list(self, prefix: str) -> Snapshot:
        """Return every item under the prefix. Raises: StoreUnavailable."""
        return await self._in_thread(lambda: self._listed(prefix))

    async def txn(self, compares: Sequence[Compare], changes: Sequence[Change]) -> Committed:
        """Make all changes if all conditions hold, else none. Raises: InvalidInput, LeaseLost, StoreUnavailable."""
        check_txn(compares, changes)
        committed = await self._in_thread(lambda: self._transact(compares, changes))
        if committed.done and changes:
            self._announce()
        return committed

    async def lease(self, ttl_s: float) -> "SqliteLease":
        """Grant a lease. Raises: InvalidInput, StoreUnavailable."""
        check_ttl(ttl_s)
        statement = "INSERT INTO leases (ttl_s, expires_s) VALUES (?, ?)"

        def grant() -> int:
            return self._open.execute(statement, (ttl_s, self._clock() + ttl_s)).lastrowid or 0

        return SqliteLease(self, await self._in_thread(grant), ttl_s)

    async def watch(self, prefix: str, *, after_revision: int) -> AsyncGenerator[tuple[Event, ...]]:
        """Yield each later transaction's changes under the prefix. Raises: WatchCompacted, StoreUnavailable."""
        seen = after_revision
        while True:
            changed = self._changed
            batches, seen, more = await self._in_thread(partial(self._changes, prefix, seen))
            for batch in batches:
                yield batch
            if not more:
                await changed.wait()

    @property
    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreUnavailable(f"the store {self.path} is closed", path=str(self.path))
        return self._connection

    async def _in_thread(self, act: Callable[[], T]) -> T:
        """Run in the store's thread; the one place where SQLite's errors become ours."""

        def run() -> T:
            try:
                return act()
            except sqlite3.Error as error:
                raise StoreUnavailable(
                    f"the store {self.path} failed: {error}", path=str(self.path)
                ) from error

        try:
            future = asyncio.get_running_loop().run_in_executor(self._thread, run)
        except RuntimeError as error:
            raise StoreUnavailable(f"the store {self.path} is closed", path=str(self.path)) from error
        return await future

    def _announce(self) -> None:
        """Wake every watcher."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _listed(self, prefix: str) -> Snapshot:
        with Transaction(self._open, writing=False) as connection:
            rows = connection.execute(
                "SELECT key, value, revision, lease_id FROM items WHERE key >= ? AND substr(key, 1, ?) = ? ORDER BY key",
                (prefix, len(prefix), prefix),
            ).fetchall()
            return Snapshot(items=tuple(item_of(row) for row in rows), revision=revision_of(connection))

    def _transact(self, compares: Sequence[Compare], changes: Sequence[Change]) -> Committed:
        with Transaction(self._open) as connection:
            for compare in compares:
                found = find(connection, compare.key)
                if (found.revision if found else 0) != compare.revision:
                    return Committed(done=False, revision=revision_of(connection))
            for change in changes:
                if isinstance(change, Put) and change.lease_id:
                    self._check_lease(change.lease_id)
            return Committed(done=True, revision=apply_changes(connection, changes))

    def _check_lease(self, lease_id: int) -> None:
        row = self._open.execute("SELECT expires_s FROM leases WHERE id = ?", (lease_id,)).fetchone()
        if row is None or row[0] <= self._clock():
            raise LeaseLost(f"lease {lease_id} is gone", lease_id=lease_id)

    def _changes(self, prefix: str, after: int) -> tuple[Sequence[tuple[Event, ...]], int, bool]:
        """Return the batches after a revision, the revision read up to, and whether more are waiting."""
        with Transaction(self._open, writing=False) as connection:
            (compacted,) = connection.execute("SELECT value FROM meta WHERE name = 'compacted'").fetchone()
            if after < compacted:
                raise WatchCompacted(f"history before revision {compacted} is gone", revision=compacted)
            newest = revision_of(connection)
            until = min(newest, after + WATCH_REVISIONS_MAX)
            rows = connection.execute(
                "SELECT revision, key, value FROM history WHERE revision > ? AND revision <= ?"
                " AND substr(key, 1, ?) = ? ORDER BY revision, key",
                (after, until, len(prefix), prefix),
            ).fetchall()
        batches: dict[int, tuple[Event, ...]] = {}
        for revision, key, value in rows:
            event = Event(key=key, value=value, revision=revision)
            batches[revision] = (*batches.get(revision, ()), event)
        return tuple(batches.values()), max(until, after), until < newest

    def _renew_after_reboot(self) -> None:
        """Give every lease its term anew when the monotonic clock of its expiry is another boot's."""
        boot_id = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "unknown"
        with Transaction(self._open) as connection:
            (known,) = connection.execute("SELECT value FROM meta WHERE name = 'boot_id'").fetchone()
            if known != boot_id:
                connection.execute("UPDATE leases SET expires_s = ttl_s + ?", (self._clock(),))
                connection.execute("UPDATE meta SET value = ? WHERE name = 'boot_id'", (boot_id,))

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            with suppress(StoreUnavailable):  # A locked or full disk now is tried again at the next tick.
                if await self._in_thread(self._tick):
                    self._announce()

    def _tick(self) -> bool:
        """Expire leases; True when watchers have something to read."""
        (version,) = self._open.execute("PRAGMA data_version").fetchone()
        is_foreign, self._data_version = version != self._data_version, version
        late = self._open.execute("SELECT id FROM leases WHERE expires_s <= ?", (self._clock(),)).fetchall()
        for (lease_id,) in late:
            self.drop_lease(lease_id, only_late=True)
        return is_foreign or bool(late)

    def keep_lease(self, lease_id: int) -> None:
        """Start a lease's term anew (store thread). Raises: LeaseLost."""
        now = self._clock()
        statement = "UPDATE leases SET expires_s = ttl_s + ? WHERE id = ? AND expires_s > ?"
        if self._open.execute(statement, (now, lease_id, now)).rowcount != 1:
            raise LeaseLost(f"lease {lease_id} is gone", lease_id=lease_id)

    def drop_lease(self, lease_id: int, *, only_late: bool = False) -> None:
        """Delete a lease and its keys (store thread); with `only_late`, not if somebody has just renewed it."""
        with Transaction(self._open) as connection:
            until = self._clock() if only_late else float("inf")
            statement = "DELETE FROM leases WHERE id = ? AND expires_s <= ?"
            if connection.execute(statement, (lease_id, until)).rowcount:
                rows = connection.execute("SELECT key FROM items WHERE lease_id = ?", (lease_id,)).fetchall()
                if rows:
                    apply_changes(connection, [key for (key,) in rows])

    async def lease_call(self, act: Callable[[], None]) -> None:
        """Run a lease's verb in the store's thread and wake watchers."""
        await self._in_thread(act)
        self._announce()


class SqliteLease:
    """A lease in the file."""

    def __init__(self, store: SqliteStore, lease_id: int, ttl_s: float) -> None:
        self._store = store
        self.id = lease_id
        self.ttl_s = ttl_s

    async def keep(self) -> None:
        """Start the term anew. Raises: LeaseLost, StoreUnavailable."""
        await self._store._in_thread(lambda: self._store.keep_lease(self.id))  # noqa: SLF001 - one thing in two classes

    async def revoke(self) -> None:
        """End it now and delete its keys. Raises: StoreUnavailable."""
        await self._store.lease_call(lambda: self._store.drop_lease(self.id))
