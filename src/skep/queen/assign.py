"""The leader's work: pools that are declared at the queen get a node, and their hives are told.

One pass compares what is declared, what is assigned and what the hives report, and does the next step for each pool.
Every write is fenced, every step can be repeated, and a hive refuses a generation that is older than the one it has.
"""

import asyncio
import time
from collections.abc import Callable

import aiohttp
import msgspec
import structlog

from skep.errors.queen import NotLeader
from skep.errors.store import StoreBroken, StoreUnavailable
from skep.lifecycle.node import NodeState
from skep.policy.placement import NodeRoom, place_pool
from skep.queen.records import ASSIGNMENTS, POOLS, Assignment, PoolRecord
from skep.queen.registry import Node, Registry
from skep.queen.state import State
from skep.store.base import Compare, Delete, Put
from skep.web.client import make_client
from skep.wire.hive import DeclareRequest

log = structlog.get_logger(__name__)

PASS_S = 1.0
LOST_FOR_GOOD_S = 300.0
CALL_S_MAX = 5.0
RETELL_S = 5.0
CALLS_MAX = 8
_NOT_FOUND, _CONFLICT, _BAD = 404, 409, 400


class Assigner:
    """Reconciles while this queen leads."""

    def __init__(
        self,
        state: State,
        registry: Registry,
        token: str,
        *,
        lost_for_good_s: float = LOST_FOR_GOOD_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state, self._registry, self._token = state, registry, token
        self._lost_for_good_s, self._clock = lost_for_good_s, clock
        self._told_s: dict[str, float] = {}
        self._poked = asyncio.Event()
        self._calls = asyncio.Semaphore(CALLS_MAX)
        self.failures: dict[str, str] = {}
        registry.listen(self._poked.set)
        state.listen(lambda _: self._poked.set())

    async def run(self) -> None:
        """Make a pass at each change and every second, for ever; only a leader acts."""
        async with make_client(token=self._token or None, total_s=CALL_S_MAX) as client:
            while True:
                if self._state.membership.is_leader:
                    try:
                        await self.run_pass(client)
                    except NotLeader:
                        log.info("pass_ended", reason="this queen leads no more")
                    except (StoreUnavailable, StoreBroken) as error:
                        log.info("pass_ended", reason=str(error))
                self._poked.clear()
                try:
                    async with asyncio.timeout(PASS_S):
                        await self._poked.wait()
                    await asyncio.sleep(PASS_S / 10)
                except TimeoutError:
                    pass

    async def run_pass(self, client: aiohttp.ClientSession) -> None:
        """Do the next step for every pool. Raises: NotLeader, StoreUnavailable."""
        declared = {one.pool.id: one for one in self._state.records(POOLS, PoolRecord)}
        assigned = {one.pool_id: one for one in self._state.records(ASSIGNMENTS, Assignment)}
        for pool_id, record in declared.items():
            kept = await self._assign(record, assigned.get(pool_id), assigned)
            if kept is not None:
                assigned[pool_id] = kept
        calls = [
            self._tell(client, declared[one.pool_id], one)
            for one in assigned.values()
            if one.pool_id in declared
        ]
        calls += [self._retire(client, one) for one in assigned.values() if one.pool_id not in declared]
        await asyncio.gather(*calls)

    async def _assign(
        self, record: PoolRecord, present: Assignment | None, assigned: dict[str, Assignment]
    ) -> Assignment | None:
        """Return where the pool is, or is from now on; None when it fits nowhere just now."""
        pool, refused = record.pool, present.refused if present else ()
        if present is not None and present.generation < record.generation:
            refused = ()
        if present is not None and self._is_refused(present):
            refused = (*refused, present.node_id)
        elif present is not None and self._stands(present, pool.node):
            if present.generation == record.generation:
                return present
            return await self._write(record, present, present.node_id, refused)
        node_id = pool.node or self._chosen(record, refused, assigned)
        if node_id is None:
            self.failures[pool.id] = (
                "it fits on no living node" if self._registry.nodes else "no node is registered"
            )
            return present
        self.failures.pop(pool.id, None)
        return await self._write(record, present, node_id, refused)

    def _stands(self, present: Assignment, wanted: str | None) -> bool:
        """True when the pool may stay where it is: a node that is lost for a while is waited for."""
        if wanted is not None and wanted != present.node_id:
            return False
        node = self._registry.nodes.get(present.node_id)
        if node is None:
            return time.time() - present.assigned_at < self._lost_for_good_s
        return node.state is not NodeState.LOST or self._registry.age_s(node) < self._lost_for_good_s

    def _is_refused(self, present: Assignment) -> bool:
        """True when the hive has tried and says that it does not fit there."""
        node = self._registry.nodes.get(present.node_id)
        report = node.pools.get(present.pool_id) if node else None
        if report is None or report.generation != present.generation or report.state != "unready":
            return False
        return "not fit" in (report.last_error or "")

    def _chosen(
        self, record: PoolRecord, refused: tuple[str, ...], assigned: dict[str, Assignment]
    ) -> str | None:
        rooms = [
            NodeRoom(
                node_id=node.node_id,
                free_bytes=_free_bytes(node),
                pools=sum(one.node_id == node.node_id for one in assigned.values()),
                has_weights=any(
                    pool.model in (record.pool.model, record.pool.name) for pool in node.pools.values()
                ),
            )
            for node in self._registry.nodes.values()
            if node.is_alive and node.node_id not in refused
        ]
        found = place_pool(record.memory_bytes * record.pool.replicas, rooms, record.spread)
        return found.node_id if found else None

    async def _write(
        self, record: PoolRecord, present: Assignment | None, node_id: str, refused: tuple[str, ...]
    ) -> Assignment | None:
        """Write an assignment, fenced; a move is a new generation of the declaration. Raises: NotLeader."""
        generation = record.generation
        changes: list[Put | Delete] = []
        pool_key, key = POOLS + record.pool.id, ASSIGNMENTS + record.pool.id
        is_move = present is not None and present.node_id != node_id and present.generation == generation
        if is_move:
            generation += 1
            moved = msgspec.structs.replace(record, generation=generation)
            changes.append(Put(key=pool_key, value=msgspec.json.encode(moved)))
        fresh = Assignment(
            pool_id=record.pool.id,
            node_id=node_id,
            generation=generation,
            refused=refused,
            assigned_at=time.time(),
        )
        changes.append(Put(key=key, value=msgspec.json.encode(fresh)))
        items = self._state.mirror.items
        compares = [
            Compare(key=one, revision=items[one].revision if one in items else 0) for one in (pool_key, key)
        ]
        if not await self._state.membership.write(compares, list(changes)):
            return present  # Somebody changed it meanwhile: the next pass reads it anew.
        log.info(
            "pool_assigned", pool_id=record.pool.id, node_id=node_id, generation=generation, is_move=is_move
        )
        if is_move and present is not None:
            self._told_s.pop(f"{present.pool_id}@{present.node_id}", None)
        return fresh

    async def _tell(self, client: aiohttp.ClientSession, record: PoolRecord, present: Assignment) -> None:
        """Declare the pool at its hive until the hive reports this generation; forget it where it was before."""
        await self._clear_others(client, present)
        node = self._registry.nodes.get(present.node_id)
        report = node.pools.get(present.pool_id) if node else None
        if (
            node is None
            or not node.is_heard
            or (report is not None and report.generation >= present.generation)
        ):
            return
        if self._is_recent(f"{present.pool_id}@{node.node_id}"):
            return
        body = DeclareRequest(pool=record.pool, generation=present.generation, preload=True)
        status, text = await self._call(client, "POST", f"{node.request.address}/v2/pools", body)
        if status >= _BAD:
            self.failures[present.pool_id] = f"node {node.node_id} answers {status}: {text}"
            log.warning(
                "declare_failed", pool_id=present.pool_id, node_id=node.node_id, status=status, reason=text
            )

    async def _clear_others(self, client: aiohttp.ClientSession, present: Assignment) -> None:
        """Retire what is left of the pool on nodes from which it was moved."""
        for node in list(self._registry.nodes.values()):
            report = node.pools.get(present.pool_id)
            is_old = report is not None and 0 < report.generation < present.generation
            if is_old and node.node_id != present.node_id and node.is_heard:
                await self._remove(client, node, present.pool_id)

    async def _retire(self, client: aiohttp.ClientSession, present: Assignment) -> None:
        """End a pool that is declared no more; forget the assignment once its hive does not report it."""
        node = self._registry.nodes.get(present.node_id)
        if node is not None and present.pool_id in node.pools:
            await self._remove(client, node, present.pool_id)
            return
        if node is not None and not node.is_heard:
            return
        key = ASSIGNMENTS + present.pool_id
        item = self._state.mirror.items.get(key)
        if item is not None:
            await self._state.membership.write([Compare(key=key, revision=item.revision)], [Delete(key=key)])
            self.failures.pop(present.pool_id, None)

    async def _remove(self, client: aiohttp.ClientSession, node: Node, pool_id: str) -> None:
        if not self._is_recent(f"-{pool_id}@{node.node_id}"):
            await self._call(client, "DELETE", f"{node.request.address}/v2/pools/{pool_id}", None)

    def _is_recent(self, what: str) -> bool:
        """True when the hive was told this a moment ago; notes that it is told now otherwise."""
        now = self._clock()
        if now - self._told_s.get(what, -RETELL_S) < RETELL_S:
            return True
        self._told_s = {key: at for key, at in self._told_s.items() if now - at < RETELL_S}
        self._told_s[what] = now
        return False

    async def _call(
        self, client: aiohttp.ClientSession, method: str, url: str, body: DeclareRequest | None
    ) -> tuple[int, str]:
        data = None if body is None else msgspec.json.encode(body)
        try:
            async with (
                self._calls,
                client.request(
                    method,
                    url,
                    data=data,
                    headers={"content-type": "application/json"},
                    allow_redirects=False,
                ) as answer,
            ):
                return answer.status, (await answer.text())[:300]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return 502, repr(error)[:300]


def _free_bytes(node: Node) -> int:
    """Return the free memory of a node's accelerators together, of its host when it has none."""
    accelerators = [one.memory_free_bytes for one in node.devices if one.kind != "cpu"]
    if accelerators:
        return sum(accelerators)
    return max([one.memory_free_bytes for one in node.devices], default=node.ram_available_bytes)
