"""The fake Kubernetes API server: real HTTP on loopback, for clients that must not know the difference.

    with FakeKubeApi() as api:
        client = kubernetes.client.ApiClient(api.configuration())

It serves discovery, CRUD, lists in pages, watches, patches, status apart, RBAC and access reviews over a
`KubeStore`; `api.faults` makes it fail on demand, `api.calls` is what it saw.
"""

import asyncio
import json
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

from skep.testkit.kube.answer import Asked, body_of
from skep.testkit.kube.discovery import api_groups, api_resources, api_versions, version_info
from skep.testkit.kube.faults import Call, Faults
from skep.testkit.kube.rbac import ADMIN_TOKEN, Rbac
from skep.testkit.kube.resources import BUILT_IN, SIMULATIONS, Resource
from skep.testkit.kube.status import ApiError
from skep.testkit.kube.store import KubeStore

BODY_BYTES_MAX: Final = 3 << 20
START_S_MAX: Final = 10.0


class FakeKubeApi:
    """One API server in a thread of its own; `with` starts it and stops it without leaving anything."""

    def __init__(
        self, *, has_simkube: bool = True, resources: Iterable[Resource] = (), history_max: int = 5000
    ) -> None:
        custom = (*((SIMULATIONS,) if has_simkube else ()), *resources)
        self.resources: dict[tuple[str, str, str], Resource] = {
            (one.group, one.version, one.plural): one for one in (*BUILT_IN, *custom)
        }
        self.store = KubeStore(history_max)
        self.rbac = Rbac()
        self.faults = Faults()
        self.calls: list[Call] = []
        for name in ("default", "kube-system"):
            self.store.create(self.resource("namespaces"), "", {"metadata": {"name": name}})
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._is_up = threading.Event()
        self._failure: BaseException | None = None
        self.port = 0

    def resource(self, plural: str) -> Resource:
        """Return a served resource by its plural."""
        return next(one for one in self.resources.values() if one.plural == plural)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def kubeconfig(self, path: Path, *, token: str = ADMIN_TOKEN) -> Path:
        """Write a kubeconfig that leads here; return its path."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "user", "user": {"token": token}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "user"}}],
        }
        path.write_text(json.dumps(document))
        return path

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name="skep-fake-kube", daemon=True)
        self._thread.start()
        if not self._is_up.wait(START_S_MAX) or self._failure is not None:
            raise RuntimeError(f"the fake API server did not start: {self._failure}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        if self._thread is not None:
            self._thread.join(START_S_MAX)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - told to the thread that waits
            self._failure = error
        finally:
            self._is_up.set()

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = runner.addresses[0][1]
            self._is_up.set()
            await self._stopping.wait()
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            user = self.rbac.authenticate(request.headers.get("Authorization", ""))
            return await self._route(request, user)
        except ApiError as error:
            headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
            return web.json_response(error.body(), status=error.code, headers=headers)

    async def _route(self, request: web.Request, user: str) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        groups = sorted({(one.group, one.version) for one in self.resources.values() if one.group})
        match parts:
            case ["version"]:
                return web.json_response(version_info())
            case ["api"]:
                return web.json_response(api_versions())
            case ["apis"]:
                return web.json_response(api_groups(groups))
            case ["apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"]:
                return web.json_response(self._review(await body_of(request), user), status=201)
            case ["api", version, *rest]:
                return await self._api(request, user, "", version, rest)
            case ["apis", group, version, *rest]:
                return await self._api(request, user, group, version, rest)
            case _:
                raise ApiError(404, "NotFound", "the server could not find the requested resource")

    async def _api(
        self, request: web.Request, user: str, group: str, version: str, rest: list[str]
    ) -> web.StreamResponse:
        served = [one for one in self.resources.values() if (one.group, one.version) == (group, version)]
        if not served:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        if not rest:
            return web.json_response(api_resources(group, version, served))
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] != "status":
            namespace, rest = rest[1], rest[2:]
        plural, name, subresource = (*rest, "", "")[:3]
        resource = self.resources.get((group, version, plural))
        if (
            resource is None
            or len(rest) > 3
            or (subresource and not (subresource == "status" and resource.has_status))
        ):
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        asked = Asked(self, request, user, resource, namespace, name, subresource)
        return await asked.answer()

    def _review(self, body: Any, user: str) -> dict[str, Any]:
        wanted = (body.get("spec") or {}).get("resourceAttributes") or {}
        resource = wanted.get("resource", "") + (
            f"/{wanted['subresource']}" if wanted.get("subresource") else ""
        )
        is_allowed = self.rbac.is_allowed(
            user, wanted.get("verb", ""), wanted.get("group", ""), resource, wanted.get("namespace", "")
        )
        return {**body, "status": {"allowed": is_allowed}}
