"""The audit log: one record for each admin call that changes something, or tried to. Kept in the store, bounded."""

import asyncio
import time
from collections import deque

import msgspec
import structlog

from skep.errors.store import StoreBroken, StoreUnavailable
from skep.queen.records import AUDIT, AuditRecord
from skep.store.base import TXN_CHANGES_MAX, Change, Delete, Put, Store

log = structlog.get_logger(__name__)

RECORDS_MAX = 1_000
PENDING_MAX = 1_000


class Audit:
    """Takes records at once and writes them soon; each is a line in the structured log as well."""

    def __init__(self, store: Store, queen_id: str) -> None:
        self._store, self._queen_id = store, queen_id
        self._pending: deque[AuditRecord] = deque(maxlen=PENDING_MAX)
        self._wake = asyncio.Event()
        self._number = 0

    def add(self, *, actor: str, address: str, method: str, path: str, status: int) -> None:
        """Take a record."""
        record = AuditRecord(
            at=time.time(),
            actor=actor,
            address=address,
            method=method,
            path=path[:500],
            status=status,
            queen_id=self._queen_id,
        )
        log.info(
            "audit", **{key: value for key, value in msgspec.structs.asdict(record).items() if key != "at"}
        )
        self._pending.append(record)
        self._wake.set()

    async def run(self) -> None:
        """Write what was taken, for ever; a store that is away is waited for, within the bound of what may wait."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.flush()
            except (StoreUnavailable, StoreBroken) as error:
                log.warning("audit_waits", records=len(self._pending), reason=str(error))
                await asyncio.sleep(1.0)
                self._wake.set()

    async def flush(self) -> None:
        """Write what waits, and drop the oldest above the bound. Raises: StoreUnavailable."""
        while self._pending:
            batch = [self._pending[at] for at in range(min(len(self._pending), TXN_CHANGES_MAX))]
            await self._store.txn([], [self._put(record) for record in batch])
            for _ in batch:
                self._pending.popleft()
        kept = (await self._store.list(AUDIT)).items
        for start in range(0, len(kept) - RECORDS_MAX, TXN_CHANGES_MAX):
            old = kept[start : min(start + TXN_CHANGES_MAX, len(kept) - RECORDS_MAX)]
            await self._store.txn([], [Delete(key=item.key) for item in old])

    async def newest(self, count: int = RECORDS_MAX) -> list[AuditRecord]:
        """Return the newest records, newest first. Raises: StoreUnavailable."""
        items = (await self._store.list(AUDIT)).items[-count:]
        return [msgspec.json.decode(item.value, type=AuditRecord) for item in reversed(items)]

    def _put(self, record: AuditRecord) -> Change:
        self._number += 1
        key = f"{AUDIT}{int(record.at * 1e6):020d}-{self._queen_id}-{self._number}"
        return Put(key=key, value=msgspec.json.encode(record))
