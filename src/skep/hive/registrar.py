"""Telling a queen what is here: registered once, beaten every ten seconds and at each change, tried for ever.

A queen that is away changes nothing for what runs here. With several (their URLs, separated by commas), the next is
told at once; they pass on to each other what they hear.
"""

import asyncio
import os
import ssl
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec
import structlog

from skep import __version__
from skep.errors import InvalidInput
from skep.errors.hive import PoolBusy, PoolNotFound, QueenUnreachable
from skep.hive.devices.cpu import cores
from skep.hive.node import Node
from skep.hive.pools import Pools
from skep.hive.view import device_report, pool_report
from skep.policy import backoff
from skep.web.client import describe_token, make_client
from skep.wire import tolerant
from skep.wire.node import Capabilities, Heartbeat, HeartbeatReply, RegisterReply, RegisterRequest

T = TypeVar("T")

log = structlog.get_logger(__name__)

EXCHANGE_S = 5.0
SETTLE_S = 0.02
"""How long changes are gathered before they are pushed: a burst is one message."""
LEAVE_S = 1.0
_GONE = 404
_OK = 300


class Registrar:
    """One hive's talk with its queen."""

    def __init__(self, node: Node, pools: Pools, *, address: str) -> None:
        self._node, self._pools, self._address = node, pools, address
        self._sequence = 0
        certificates = node.settings.tls_ca
        self._tls = ssl.create_default_context(cafile=certificates) if certificates else True
        self._urls = [one.strip().rstrip("/") for one in node.settings.queen.split(",") if one.strip()]
        self.is_registered = False

    async def run(self) -> None:
        """Register and beat, for ever."""
        settings = self._node.settings
        async with make_client(token=settings.queen_token, total_s=EXCHANGE_S) as client:
            failures = 0
            while True:
                try:
                    if not self.is_registered:
                        pause_s = await self._register(client)
                        log.info(
                            "registered",
                            queen=self._urls[0],
                            token_sha256=describe_token(settings.queen_token),
                        )
                    else:
                        pause_s = await self._beat(client)
                    failures = 0
                    await self._changed_within(pause_s)
                except QueenUnreachable as error:
                    failures += 1
                    self._node.metrics.count(self._node.metrics.registrations, "failed")
                    self._urls = [*self._urls[1:], self._urls[0]]
                    if failures % len(self._urls):
                        log.warning("next_queen", error=str(error), queen=self._urls[0])
                        continue
                    delay_s = backoff.delay_s(failures, jitter=self._node.rng.uniform(-1, 1))
                    log.warning("queen_unreachable", error=str(error), retry_in_s=round(delay_s, 2))
                    await self._node.sleep(delay_s)

    async def leave(self) -> None:
        """Say goodbye, so that nobody waits for a lease to run out; a queen that is away is not waited for."""
        if not self.is_registered:
            return
        async with make_client(token=self._node.settings.queen_token, total_s=LEAVE_S) as client:
            try:
                await self._send(client, "DELETE", f"/v2/nodes/{self._node.settings.node_id}", None)
            except QueenUnreachable as error:
                log.warning("leave_failed", error=str(error))

    async def _register(self, client: aiohttp.ClientSession) -> float:
        inventory, settings = self._node.inventory, self._node.settings
        total = next((one.memory_total_bytes for one in inventory.devices if one.id == "cpu"), 0)
        request = RegisterRequest(
            node_id=settings.node_id,
            address=self._address,
            version=__version__,
            machine_id=machine_id(),
            instance=settings.instance,
            capabilities=Capabilities(
                devices=tuple(device_report(one) for one in inventory.devices),
                cpu_cores=cores(),
                ram_total_bytes=total,
            ),
            pools=tuple(pool_report(one, inventory) for one in self._pools.ordered()),
        )
        self._node.changed.clear()
        status, body = await self._send(client, "POST", "/v2/nodes/register", request)
        if status >= _OK:
            raise QueenUnreachable(f"the queen refuses the registration with {status}", url=self._urls[0])
        self.is_registered = True
        return self._read(body, RegisterReply).next_heartbeat_ms / 1000

    async def _beat(self, client: aiohttp.ClientSession) -> float:
        inventory, settings = self._node.inventory, self._node.settings
        self._sequence += 1
        self._node.changed.clear()
        available = next((one.memory_free_bytes for one in inventory.devices if one.id == "cpu"), 0)
        beat = Heartbeat(
            pools=tuple(pool_report(one, inventory) for one in self._pools.ordered()),
            instance=settings.instance,
            sequence=self._sequence,
            devices=tuple(device_report(one) for one in inventory.devices),
            ram_available_bytes=available,
        )
        status, body = await self._send(client, "POST", f"/v2/nodes/{settings.node_id}/heartbeat", beat)
        if status == _GONE:
            self.is_registered = False
            return 0.0
        if status >= _OK:
            raise QueenUnreachable(f"the queen answers {status} to a heartbeat", url=self._urls[0])
        reply = self._read(body, HeartbeatReply)
        await self._wake(reply.wanted)
        return reply.next_heartbeat_ms / 1000

    async def _wake(self, wanted: tuple[str, ...]) -> None:
        for pool_id in wanted:
            try:
                await self._pools.get(pool_id).preload()
            except (PoolNotFound, PoolBusy) as error:
                log.info("wanted_pool_not_loaded", pool_id=pool_id, error=str(error))

    async def _changed_within(self, pause_s: float) -> None:
        if not self.is_registered:
            return
        try:
            async with asyncio.timeout(pause_s):
                await self._node.changed.wait()
        except TimeoutError:
            return
        await asyncio.sleep(SETTLE_S)

    async def _send(
        self, client: aiohttp.ClientSession, method: str, path: str, message: msgspec.Struct | None
    ) -> tuple[int, bytes]:
        data = None if message is None else msgspec.json.encode(message)
        url = f"{self._urls[0]}{path}"
        headers = {} if data is None else {"content-type": "application/json"}
        try:
            async with client.request(method, url, data=data, headers=headers, ssl=self._tls) as reply:
                body = await reply.read()
                self._node.metrics.count(self._node.metrics.registrations, "answered")
                return reply.status, body
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise QueenUnreachable(f"{url}: {error or type(error).__name__}", url=url) from error

    def _read(self, body: bytes, kind: type[T]) -> T:
        try:
            decoded = tolerant.decode(body, kind)
        except InvalidInput as error:
            url = self._urls[0]
            raise QueenUnreachable(f"{url} answers what is not understood: {error}", url=url) from error
        if decoded.unknown_fields:
            log.info("queen_unknown_fields", message_type=kind.__name__, count=decoded.unknown_fields)
        return decoded.message


def machine_id() -> str:
    """Return what tells this machine from others, "" where the system has no such thing."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        if os.access(path, os.R_OK):
            return Path(path).read_text(encoding="ascii").strip()
    return ""
