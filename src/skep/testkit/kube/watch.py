"""A watch as the API streams it: what changed, as one selector sees it, with bookmarks, until it is too old or over.

An object that comes into a selector's view is ADDED for that watch, one that leaves it is DELETED, however it
changed. A version that was compacted away is an ERROR event with a 410 Status, on a stream that began with 200.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

from skep.testkit.kube.history import Change
from skep.testkit.kube.resources import Resource
from skep.testkit.kube.status import ApiError
from skep.testkit.kube.store import KubeStore, is_selected


class WatchRequest(NamedTuple):
    """What a client asked to see. `version` is None or 0 to begin with what there is."""

    resource: Resource
    namespace: str
    labels: str
    fields: str
    version: int | None
    has_bookmarks: bool
    timeout_s: float
    bookmark_every_s: float


def encode(kind: str, item: dict[str, Any]) -> bytes:
    """Return one line of the stream."""
    return json.dumps({"type": kind, "object": item}, separators=(",", ":")).encode() + b"\n"


async def watch(store: KubeStore, request: WatchRequest) -> AsyncGenerator[bytes]:
    """Yield the lines of one watch until its timeout or a 410."""
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()
    stop = store.listen(lambda: loop.call_soon_threadsafe(woken.set))
    deadline = loop.time() + request.timeout_s
    next_bookmark = loop.time() + request.bookmark_every_s
    try:
        cursor = request.version or 0
        if not cursor:
            page = store.list_page(
                request.resource, request.namespace, labels=request.labels, fields=request.fields
            )
            cursor = page.version
            for one in page.items:
                yield encode("ADDED", one)
        while loop.time() < deadline:
            woken.clear()
            try:
                changes = store.changes_since(cursor, request.resource)
            except ApiError as error:
                yield encode("ERROR", error.body())
                return
            for change in changes:
                cursor = change.version
                if line := as_seen(change, request):
                    yield line
            if request.has_bookmarks and loop.time() >= next_bookmark:
                next_bookmark = loop.time() + request.bookmark_every_s
                cursor = max(cursor, store.version)
                yield encode("BOOKMARK", _bookmark(request.resource, cursor))
            wake_at = min(deadline, next_bookmark) if request.has_bookmarks else deadline
            try:
                async with asyncio.timeout_at(wake_at):
                    await woken.wait()
            except TimeoutError:
                continue
    finally:
        stop()


def as_seen(change: Change, request: WatchRequest) -> bytes | None:
    """Return a change's line for this watch, None where it does not concern it."""
    was = change.before is not None and is_selected(
        change.before, request.namespace, request.labels, request.fields
    )
    now = change.after is not None and is_selected(
        change.after, request.namespace, request.labels, request.fields
    )
    if now and change.after is not None:
        return encode("MODIFIED" if was else "ADDED", change.after)
    if was and change.before is not None:
        gone = (
            change.before if change.after is None else {**change.before, "metadata": change.after["metadata"]}
        )
        return encode("DELETED", gone)
    return None


def _bookmark(resource: Resource, version: int) -> dict[str, Any]:
    return {
        "kind": resource.kind,
        "apiVersion": resource.api_version,
        "metadata": {"resourceVersion": str(version), "creationTimestamp": None},
    }
