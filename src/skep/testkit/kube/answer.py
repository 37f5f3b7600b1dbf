"""What the fake API server answers to one request for one resource: authorize, meet the faults, act on the store."""

import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from aiohttp import web

from skep.testkit.kube.faults import Call, Faults
from skep.testkit.kube.rbac import Rbac
from skep.testkit.kube.resources import Resource
from skep.testkit.kube.status import bad_request, method_not_allowed
from skep.testkit.kube.store import KubeStore
from skep.testkit.kube.watch import WatchRequest, watch

WATCH_TIMEOUT_S: Final = 1800.0
CALLS_MAX: Final = 10_000
_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch"}


class Api(Protocol):
    """What of the server an answer needs."""

    store: KubeStore
    rbac: Rbac
    faults: Faults
    calls: list[Call]


class Asked:
    """One request for one resource."""

    def __init__(
        self,
        api: Api,
        request: web.Request,
        user: str,
        resource: Resource,
        namespace: str,
        name: str,
        subresource: str,
    ) -> None:
        self.api, self.request, self.user = api, request, user
        self.resource, self.namespace, self.name, self.subresource = resource, namespace, name, subresource
        self.query = request.query

    async def answer(self) -> web.StreamResponse:
        """Authorize, meet the faults, act."""
        verb = self._verb()
        calls = self.api.calls
        if len(calls) < CALLS_MAX:
            calls.append(Call(verb, self.resource.plural, self.namespace, self.name, self.user))
        failure = self.api.faults.take(verb, self.resource.plural)
        if failure is not None:
            if failure.error is not None:
                raise failure.error
            if self.request.transport is not None:
                self.request.transport.abort()
            return web.Response(status=500)
        self.api.rbac.authorize(self.user, verb, self.resource, self.namespace, self.name, self.subresource)
        handlers: dict[str, Callable[[], Awaitable[web.StreamResponse]]] = {
            "get": self._get,
            "list": self._list,
            "watch": self._watch,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_collection,
        }
        return await handlers[verb]()

    def _verb(self) -> str:
        method = self.request.method
        if method == "GET":
            is_watch = self.query.get("watch", "") in ("true", "1", "True")
            return "watch" if is_watch else "get" if self.name else "list"
        if method == "DELETE":
            return "delete" if self.name else "deletecollection"
        if method not in _VERBS or (method == "POST") is bool(self.name):
            raise method_not_allowed()
        if method == "POST" and self.resource.is_namespaced and not self.namespace:
            raise method_not_allowed()
        return _VERBS[method]

    async def _get(self) -> web.StreamResponse:
        return web.json_response(self.api.store.get(self.resource, self.namespace, self.name))

    async def _list(self) -> web.StreamResponse:
        page = self.api.store.list_page(
            self.resource,
            self.namespace,
            labels=self.query.get("labelSelector", ""),
            fields=self.query.get("fieldSelector", ""),
            limit=_number(self.query.get("limit", "0"), "limit"),
            token=self.query.get("continue", ""),
        )
        metadata: dict[str, Any] = {"resourceVersion": str(page.version)}
        if page.next_token:
            metadata |= {"continue": page.next_token, "remainingItemCount": page.remaining}
        return web.json_response(
            {
                "kind": f"{self.resource.kind}List",
                "apiVersion": self.resource.api_version,
                "metadata": metadata,
                "items": page.items,
            }
        )

    async def _watch(self) -> web.StreamResponse:
        version = self.query.get("resourceVersion", "")
        fields = self.query.get("fieldSelector", "") + (f",metadata.name={self.name}" if self.name else "")
        wanted = WatchRequest(
            resource=self.resource,
            namespace=self.namespace,
            labels=self.query.get("labelSelector", ""),
            fields=fields.lstrip(","),
            version=_number(version, "resourceVersion") if version else None,
            has_bookmarks=self.query.get("allowWatchBookmarks", "").lower() in ("true", "1"),
            timeout_s=float(_number(self.query.get("timeoutSeconds", "0"), "timeoutSeconds"))
            or WATCH_TIMEOUT_S,
            bookmark_every_s=self.api.faults.bookmark_every_s,
        )
        budget = self.api.faults.watch_budget()
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(self.request)
        async with contextlib.aclosing(watch(self.api.store, wanted)) as lines:
            async for line in lines:
                if budget is not None:
                    if budget <= 0 and self.request.transport is not None:
                        self.request.transport.abort()
                        return response
                    budget -= 1
                try:
                    await response.write(line)
                except ConnectionResetError:  # The client has seen what it waited for and went away.
                    return response
        return response

    async def _create(self) -> web.StreamResponse:
        return web.json_response(
            self.api.store.create(self.resource, self.namespace, await body_of(self.request)), status=201
        )

    async def _update(self) -> web.StreamResponse:
        made = self.api.store.replace(
            self.resource,
            self.namespace,
            self.name,
            await body_of(self.request),
            subresource=self.subresource,
        )
        return web.json_response(made)

    async def _patch(self) -> web.StreamResponse:
        made = self.api.store.patch(
            self.resource,
            self.namespace,
            self.name,
            await body_of(self.request),
            self.request.content_type,
            subresource=self.subresource,
        )
        return web.json_response(made)

    async def _delete(self) -> web.StreamResponse:
        options = await body_of(self.request) if self.request.can_read_body else {}
        gone = self.api.store.delete(self.resource, self.namespace, self.name, options)
        if self.resource.is_custom:
            details = {
                "name": self.name,
                "group": self.resource.group,
                "kind": self.resource.plural,
                "uid": gone["metadata"]["uid"],
            }
            return web.json_response(
                {
                    "kind": "Status",
                    "apiVersion": "v1",
                    "metadata": {},
                    "status": "Success",
                    "details": details,
                }
            )
        return web.json_response(gone)

    async def _delete_collection(self) -> web.StreamResponse:
        gone = self.api.store.delete_collection(
            self.resource,
            self.namespace,
            labels=self.query.get("labelSelector", ""),
            fields=self.query.get("fieldSelector", ""),
        )
        metadata = {"resourceVersion": str(self.api.store.version)}
        return web.json_response(
            {
                "kind": f"{self.resource.kind}List",
                "apiVersion": self.resource.api_version,
                "metadata": metadata,
                "items": gone,
            }
        )


def _number(text: str, name: str) -> int:
    try:
        return max(0, int(text or 0))
    except ValueError:
        raise bad_request(f"{name}: {text!r} is no number") from None


async def body_of(request: web.Request) -> Any:
    """Return a request's body. Raises: ApiError (400)."""
    text = await request.text()
    try:
        return json.loads(text) if text else {}
    except ValueError as error:
        raise bad_request(f"the object provided is unrecognized: {error}") from error
