"""Which queens run, and which one leads: keys under a lease, and one key that only one can hold.

The revision of the leader's key is the fencing token: every write of a leader is conditional on it, so one that was
away (suspended, partitioned) and wakes up as a former leader changes nothing.
"""

import asyncio
import time

import msgspec
import structlog

from skep.errors.queen import NotLeader
from skep.errors.store import LeaseLost, StoreBroken, StoreUnavailable
from skep.queen.records import LEADER, QUEENS, QueenRecord
from skep.store.base import Change, Compare, Lease, Put, Store

log = structlog.get_logger(__name__)

LEASE_S = 3.0
KEEP_S = 1.0


class Membership:
    """This queen's place among the others."""

    def __init__(self, store: Store, me: QueenRecord) -> None:
        self._store, self.me = store, me
        self._lease: Lease | None = None
        self._kept_s = 0.0
        self._token = 0
        self._poked = asyncio.Event()

    @property
    def is_leader(self) -> bool:
        """True while this queen may reconcile; it stops believing so before its lease can have run out."""
        return self._token > 0 and time.monotonic() - self._kept_s < LEASE_S * 0.8

    def poke(self) -> None:
        """Look again now: the leader's key has changed."""
        self._poked.set()

    async def write(self, compares: list[Compare], changes: list[Change]) -> bool:
        """Change the store as the leader; False when a condition did not hold. Raises: NotLeader, StoreUnavailable."""
        if not self.is_leader:
            raise NotLeader("this queen does not lead")
        fence = Compare(key=LEADER, revision=self._token)
        committed = await self._store.txn([fence, *compares], changes)
        if not committed.done:
            await self._check_fence()
        return committed.done

    async def run(self) -> None:
        """Keep the lease and campaign, for ever; a store that is away is tried again."""
        try:
            while True:
                try:
                    await self._turn()
                except LeaseLost:
                    self._resign("its lease was lost")
                    continue
                except (StoreUnavailable, StoreBroken) as error:
                    log.debug("membership_waits", reason=str(error))
                    if not self.is_leader:
                        self._resign("the store is away")
                self._poked.clear()
                try:
                    async with asyncio.timeout(KEEP_S):
                        await self._poked.wait()
                except TimeoutError:
                    pass
        finally:
            self._token = 0

    async def leave(self) -> None:
        """Give up the lease, so that another leads at once."""
        lease, self._lease, self._token = self._lease, None, 0
        if lease is not None:
            try:
                await lease.revoke()
            except (StoreUnavailable, StoreBroken) as error:
                log.info("lease_left_to_expire", reason=str(error))

    async def _turn(self) -> None:
        asked_s = time.monotonic()
        if self._lease is None:
            self._lease = await self._store.lease(LEASE_S)
            key = QUEENS + self.me.queen_id
            await self._store.txn(
                [], [Put(key=key, value=msgspec.json.encode(self.me), lease_id=self._lease.id)]
            )
        else:
            await self._lease.keep()
        self._kept_s = asked_s
        if self._token:
            await self._check_fence()
        if not self._token:
            await self._campaign(self._lease)

    async def _campaign(self, lease: Lease) -> None:
        put = Put(key=LEADER, value=self.me.queen_id.encode(), lease_id=lease.id)
        committed = await self._store.txn([Compare(key=LEADER, revision=0)], [put])
        if committed.done:
            self._token = committed.revision
            log.info("leader", queen_id=self.me.queen_id, fencing_token=self._token)

    async def _check_fence(self) -> None:
        held = await self._store.get(LEADER)
        if held is None or held.revision != self._token:
            self._resign("another leads")

    def _resign(self, why: str) -> None:
        if self._token:
            log.warning("leader_no_more", queen_id=self.me.queen_id, reason=why)
        self._token, self._lease = 0, None
