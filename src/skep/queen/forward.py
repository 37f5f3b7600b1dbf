"""Passing nodes' messages on to the other queens, so that each of them can place on every node.

Only the newest heartbeat of a node waits for each peer: load is of use fresh or not at all, and memory stays bounded.
"""

import asyncio
from types import TracebackType
from typing import Self

import aiohttp
import msgspec
import structlog

from skep.queen.records import QueenRecord
from skep.queen.registry import Node, Registry
from skep.web.client import make_client
from skep.wire.node import Heartbeat, RegisterRequest

log = structlog.get_logger(__name__)

FORWARDED = "x-skep-forwarded"
CALL_S_MAX = 2.0
PAUSE_S = 1.0
_GONE = 404


class Forwarder:
    """One task a peer; it sends what is newest, one node after the other."""

    def __init__(self, registry: Registry, me: str, token: str) -> None:
        self._registry, self._me, self._token = registry, me, token
        self._peers: dict[str, _Peer] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the client."""
        headers = {FORWARDED: self._me, "content-type": "application/json"}
        self._session = make_client(token=self._token or None, total_s=CALL_S_MAX, headers=headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop what waits."""
        self.set_peers(())
        if self._session is not None:
            await self._session.close()

    def set_peers(self, peers: tuple[QueenRecord, ...]) -> None:
        """Forward to these from now on; a new peer is told of every node."""
        wanted = {peer.queen_id: peer for peer in peers if peer.queen_id != self._me}
        for queen_id in self._peers.keys() - wanted.keys():
            self._peers.pop(queen_id).task.cancel()
        for queen_id in wanted.keys() - self._peers.keys():
            assert self._session is not None
            peer = _Peer(wanted[queen_id], self._session, self._registry)
            self._peers[queen_id] = peer
            for node_id in self._registry.nodes:
                peer.tell(node_id)

    def tell(self, node_id: str) -> None:
        """A node has told us something; its peers hear of it."""
        for peer in self._peers.values():
            peer.tell(node_id)


class _Peer:
    """Another queen."""

    def __init__(self, record: QueenRecord, session: aiohttp.ClientSession, registry: Registry) -> None:
        self._record, self._session, self._registry = record, session, registry
        self._due: dict[str, None] = {}
        self._wake = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name=f"forward-{record.queen_id}")

    def tell(self, node_id: str) -> None:
        """Put a node among those that are due."""
        self._due[node_id] = None
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                node_id = next(iter(self._due))
                del self._due[node_id]
                try:
                    await self._send(node_id)
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    log.warning("forward_failed", queen_id=self._record.queen_id, reason=repr(error))
                    self._due.setdefault(node_id)
                    await asyncio.sleep(PAUSE_S)

    async def _send(self, node_id: str) -> None:
        node = self._registry.nodes.get(node_id)
        if node is None:
            await self._call("DELETE", f"/v2/nodes/{node_id}", None)
        elif (
            node.is_heard and await self._call("POST", f"/v2/nodes/{node_id}/heartbeat", _beat(node)) == _GONE
        ):
            request = msgspec.structs.replace(node.request, pools=tuple(node.pools.values()))
            await self._call("POST", "/v2/nodes/register", request)

    async def _call(self, method: str, path: str, message: Heartbeat | RegisterRequest | None) -> int:
        data = None if message is None else msgspec.json.encode(message)
        url = self._record.admin_url + path
        async with self._session.request(method, url, data=data, allow_redirects=False) as answer:
            await answer.read()
            return answer.status


def _beat(node: Node) -> Heartbeat:
    return Heartbeat(
        pools=tuple(node.pools.values()),
        instance=node.request.instance,
        sequence=max(node.sequence, 0),
        devices=node.devices,
        ram_available_bytes=node.ram_available_bytes,
    )
