"""The store for several queens: etcd through its JSON gateway (v3), with nothing but the HTTP client.

Keys and values are base64, numbers are strings, and a default (0, empty) is left out of the answers:
https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/. Any endpoint of the cluster may serve any call; one that does
not answer is put last, and a read is tried on each. A write is tried again elsewhere only when it cannot have happened.
"""

import math
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec

from skep.errors.store import LeaseLost, StoreBroken, StoreUnavailable, WatchCompacted
from skep.store.base import Change, Committed, Compare, Event, Item, Put, Snapshot
from skep.store.limits import check_key, check_ttl, check_txn

CALL_S_MAX = 5.0
CONNECT_S_MAX = 2.0
WATCH_LINE_BYTES_MAX = 64 << 20
NAMESPACE = "/skep/"
_LEASE_NOT_FOUND, _UNAVAILABLE_CODES = 5, (4, 8, 14)
"""gRPC's codes: not found; deadline exceeded, resource exhausted, unavailable."""


class EtcdStore:
    """`Store` over an etcd cluster. Enter it before use."""

    def __init__(
        self, endpoints: Sequence[str], *, namespace: str = NAMESPACE, call_s_max: float = CALL_S_MAX
    ) -> None:
        if not endpoints:
            raise StoreBroken("etcd needs at least one endpoint: etcd:http://host:2379")
        self._endpoints = [endpoint.rstrip("/") for endpoint in endpoints]
        self._namespace = namespace
        self._call_s_max = call_s_max
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Connect. Raises: StoreUnavailable when no endpoint answers."""
        timeout = aiohttp.ClientTimeout(total=self._call_s_max, sock_connect=CONNECT_S_MAX)
        self._session = aiohttp.ClientSession(timeout=timeout, read_bufsize=WATCH_LINE_BYTES_MAX)
        try:
            await self.get("probe")
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def get(self, key: str) -> Item | None:
        """Return the key's item, or None. Raises: StoreUnavailable."""
        answer = await self._call("/v3/kv/range", {"key": self._coded(check_key(key))})
        return next((self._item(one) for one in answer.get("kvs", ())), None)

    async def list(self, prefix: str) -> Snapshot:
        """Return every item under the prefix. Raises: StoreUnavailable."""
        answer = await self._call("/v3/kv/range", self._range(prefix))
        items = tuple(self._item(one) for one in answer.get("kvs", ()))
        return Snapshot(items=items, revision=int(answer["header"].get("revision", 0)))

    async def txn(self, compares: Sequence[Compare], changes: Sequence[Change]) -> Committed:
        """Make all changes if all conditions hold, else none. Raises: InvalidInput, LeaseLost, StoreUnavailable."""
        check_txn(compares, changes)
        body = {
            "compare": [
                {
                    "key": self._coded(one.key),
                    "target": "MOD",
                    "result": "EQUAL",
                    "mod_revision": str(one.revision),
                }
                for one in compares
            ],
            "success": [self._operation(change) for change in changes],
        }
        answer = await self._call("/v3/kv/txn", body, is_write=True)
        revision = int(answer["header"].get("revision", 0))
        return Committed(done=bool(answer.get("succeeded", False)), revision=revision)

    async def lease(self, ttl_s: float) -> "EtcdLease":
        """Grant a lease; etcd counts whole seconds, so a part of one is rounded up. Raises: StoreUnavailable."""
        answer = await self._call("/v3/lease/grant", {"TTL": str(math.ceil(check_ttl(ttl_s)))})
        return EtcdLease(self, int(answer["ID"]), float(answer["TTL"]))

    async def watch(self, prefix: str, *, after_revision: int) -> AsyncGenerator[tuple[Event, ...]]:
        """Yield each later transaction's changes under the prefix. Raises: WatchCompacted, StoreUnavailable."""
        request = {**self._range(prefix), "start_revision": str(after_revision + 1)}
        body = {"create_request": request}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S_MAX)
        try:
            async with self._open.post(
                f"{self._endpoints[0]}/v3/watch", data=msgspec.json.encode(body), timeout=timeout
            ) as response:
                async for line in response.content:
                    for batch in self._watched(msgspec.json.decode(line)):
                        yield batch
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            self._put_last(self._endpoints[0])
            raise StoreUnavailable(f"the watch on etcd broke: {error or type(error).__name__}") from error
        self._put_last(self._endpoints[0])
        raise StoreUnavailable("etcd ended the watch")

    async def lease_keep(self, lease_id: int) -> None:
        """Start a lease's term anew. Raises: LeaseLost, StoreUnavailable."""
        answer = await self._call("/v3/lease/keepalive", {"ID": str(lease_id)})
        if int(answer.get("result", {}).get("TTL", 0)) <= 0:
            raise LeaseLost(f"lease {lease_id} is gone", lease_id=lease_id)

    async def lease_revoke(self, lease_id: int) -> None:
        """End a lease; one that is gone is fine. Raises: StoreUnavailable."""
        try:
            await self._call("/v3/lease/revoke", {"ID": str(lease_id)})
        except LeaseLost:
            return

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            raise StoreUnavailable("the connection to etcd is closed")
        return self._session

    async def _call(self, path: str, body: dict[str, Any], *, is_write: bool = False) -> Any:
        """POST to the first endpoint that answers. Raises: StoreUnavailable, LeaseLost, StoreBroken."""
        failures: list[str] = []
        session = self._open
        for endpoint in list(self._endpoints):
            try:
                async with session.post(endpoint + path, data=msgspec.json.encode(body)) as response:
                    return self._checked(response.status, await response.read())
            except StoreUnavailable as failure:
                failures.append(f"{endpoint}: {failure}")
                if is_write:
                    break
            except aiohttp.ClientConnectorError as error:
                failures.append(f"{endpoint}: {error}")
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failures.append(f"{endpoint}: {error or type(error).__name__}")
                if is_write:
                    break
            self._put_last(endpoint)
        raise StoreUnavailable(
            f"no endpoint of etcd answered: {'; '.join(failures)}", endpoints=self._endpoints
        )

    def _checked(self, status: int, data: bytes) -> Any:
        """Return an answer's JSON; turn etcd's error object into ours."""
        try:
            answer = msgspec.json.decode(data)
        except msgspec.DecodeError as error:
            raise StoreBroken(
                f"etcd's answer (HTTP {status}) is not JSON: is this etcd's client port?"
            ) from error
        if status == HTTPStatus.OK and isinstance(answer, dict):
            return answer
        code = answer.get("code", 0) if isinstance(answer, dict) else 0
        message = str(answer.get("error", answer) if isinstance(answer, dict) else answer)[:200]
        if code == _LEASE_NOT_FOUND:
            raise LeaseLost(message)
        if code in _UNAVAILABLE_CODES or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise StoreUnavailable(message)
        raise StoreBroken(f"etcd refused (HTTP {status}): {message}")

    def _put_last(self, endpoint: str) -> None:
        """Ask this endpoint last from now on."""
        if self._endpoints[0] == endpoint:
            self._endpoints = [*self._endpoints[1:], endpoint]

    def _watched(self, message: Any) -> Sequence[tuple[Event, ...]]:
        """Read one message of a watch. Raises: WatchCompacted, StoreUnavailable."""
        if "error" in message:
            raise StoreUnavailable(f"etcd ended the watch: {message['error']}")
        result = message.get("result", {})
        if compacted := int(result.get("compact_revision", 0)):
            raise WatchCompacted(f"history before revision {compacted} is gone", revision=compacted)
        if result.get("canceled"):
            raise StoreUnavailable(
                f"etcd cancelled the watch: {result.get('cancel_reason', 'no reason given')}"
            )
        batches: dict[int, tuple[Event, ...]] = {}
        for one in result.get("events", ()):
            revision = int(one["kv"]["mod_revision"])
            value = None if one.get("type") == "DELETE" else b64decode(one["kv"].get("value", ""))
            event = Event(key=self._plain(one["kv"]["key"]), value=value, revision=revision)
            batches[revision] = (*batches.get(revision, ()), event)
        return tuple(batches.values())

    def _operation(self, change: Change) -> dict[str, Any]:
        if isinstance(change, Put):
            put: dict[str, Any] = {"key": self._coded(change.key), "value": b64encode(change.value).decode()}
            if change.lease_id:
                put["lease"] = str(change.lease_id)
            return {"request_put": put}
        return {"request_delete_range": {"key": self._coded(change.key)}}

    def _coded(self, key: str) -> str:
        return b64encode((self._namespace + key).encode()).decode()

    def _plain(self, coded: str) -> str:
        return b64decode(coded).decode().removeprefix(self._namespace)

    def _range(self, prefix: str) -> dict[str, Any]:
        """Return the range of all keys with a prefix: up to the prefix with its last byte raised by one."""
        start = (self._namespace + prefix).encode()
        end = start[:-1] + bytes([start[-1] + 1])
        return {"key": b64encode(start).decode(), "range_end": b64encode(end).decode()}

    def _item(self, one: dict[str, Any]) -> Item:
        return Item(
            key=self._plain(one["key"]),
            value=b64decode(one.get("value", "")),
            revision=int(one["mod_revision"]),
            lease_id=int(one.get("lease", 0)),
        )


class EtcdLease:
    """A lease in etcd."""

    def __init__(self, store: EtcdStore, lease_id: int, ttl_s: float) -> None:
        self._store = store
        self.id = lease_id
        self.ttl_s = ttl_s

    async def keep(self) -> None:
        """Start the term anew. Raises: LeaseLost, StoreUnavailable."""
        await self._store.lease_keep(self.id)

    async def revoke(self) -> None:
        """End it now and delete its keys. Raises: StoreUnavailable."""
        await self._store.lease_revoke(self.id)
