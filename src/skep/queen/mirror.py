"""A copy in memory of what the store holds, kept by watching it; what was known last stays when the store is gone."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable

import structlog

from skep.errors.store import StoreBroken, StoreUnavailable, WatchCompacted
from skep.store.base import Item, Store

log = structlog.get_logger(__name__)

RETRY_S_FIRST, RETRY_S_MAX = 0.2, 5.0


class Mirror:
    """Follows every key under a prefix. `changed` is called after each batch, with the keys that it touched."""

    def __init__(self, store: Store, prefix: str, changed: Callable[[frozenset[str]], None]) -> None:
        self._store, self._prefix, self._changed = store, prefix, changed
        self.items: dict[str, Item] = {}
        self.loaded = asyncio.Event()
        self.lost_since_s: float | None = None

    async def follow_for_ever(self) -> None:
        """List, then watch; again after every failure, with a growing pause."""
        pause_s = RETRY_S_FIRST
        while True:
            try:
                revision = await self._load()
                pause_s = RETRY_S_FIRST
                await self._watch(revision)
            except WatchCompacted:
                log.info("store_history_gone", prefix=self._prefix)
            except (StoreUnavailable, StoreBroken) as error:
                if self.lost_since_s is None:
                    self.lost_since_s = time.monotonic()
                    log.warning("store_lost", prefix=self._prefix, reason=str(error))
                await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))  # noqa: S311 - spreads the retries
                pause_s = min(pause_s * 2, RETRY_S_MAX)

    async def _load(self) -> int:
        snapshot = await self._store.list(self._prefix)
        fresh = {item.key: item for item in snapshot.items}
        touched = {key for key in fresh.keys() | self.items.keys() if fresh.get(key) != self.items.get(key)}
        self.items = fresh
        if self.lost_since_s is not None:
            log.info("store_back", prefix=self._prefix, away_s=round(time.monotonic() - self.lost_since_s, 1))
            self.lost_since_s = None
        self._changed(frozenset(touched))
        self.loaded.set()
        return snapshot.revision

    async def _watch(self, revision: int) -> None:
        async with contextlib.aclosing(self._store.watch(self._prefix, after_revision=revision)) as batches:
            async for batch in batches:
                for event in batch:
                    if event.value is None:
                        self.items.pop(event.key, None)
                    else:
                        self.items[event.key] = Item(
                            key=event.key, value=event.value, revision=event.revision
                        )
                self._changed(frozenset(event.key for event in batch))
