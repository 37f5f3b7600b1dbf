"""What the fake API server remembers: objects, one counter of resource versions, and a bounded history of changes.

Thread-safe: the server's loop, a fake controller and a test may change it at once. Semantics follow the API
conventions of Kubernetes: optimistic concurrency, generations, finalizers, owner references, status apart.
Unlike a cluster it has no kubelet, so a deleted pod is gone at once unless a finalizer holds it.
"""

import copy
import threading
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from skep.testkit.kube.history import HISTORY_MAX, Change, History, KubeObject
from skep.testkit.kube.names import check_body, generate_name
from skep.testkit.kube.paging import Page, page_of, parse_token, sort_key
from skep.testkit.kube.patches import apply_patch
from skep.testkit.kube.resources import Resource
from skep.testkit.kube.selectors import matches_fields, matches_labels
from skep.testkit.kube.status import (
    ApiError,
    already_exists,
    bad_request,
    conflict,
    expired,
    invalid,
    not_found,
)

Key = tuple[str, str, str, str]
"""Group, plural, namespace ("" at cluster scope), name."""
Validator = Callable[[KubeObject], tuple[str, str] | None]


class KubeStore:
    """The objects of one fake cluster. Raises ApiError as the real server answers."""

    def __init__(self, history_max: int = HISTORY_MAX) -> None:
        self._lock = threading.RLock()
        self._objects: dict[Key, tuple[Resource, KubeObject]] = {}
        self._history = History(history_max)
        self._listeners: list[Callable[[], object]] = []
        self._validators: dict[str, Validator] = {}

    @property
    def version(self) -> int:
        """The newest resource version."""
        return self._history.version

    def validate_with(self, resource: Resource, validator: Validator) -> None:
        """Check every object of a resource; a validator returns (field, why) where it objects."""
        self._validators[resource.plural] = validator

    def listen(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Call after every change, from the changing thread; returns how to stop."""
        with self._lock:
            self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def get(self, resource: Resource, namespace: str, name: str) -> KubeObject:
        """Return a copy of one object."""
        with self._lock:
            return copy.deepcopy(self._found(resource, namespace, name))

    def create(self, resource: Resource, namespace: str, body: Any) -> KubeObject:
        """Create an object from a request's body."""
        with self._lock:
            check_body(resource, namespace, body)
            made: KubeObject = copy.deepcopy(body)
            metadata = made.setdefault("metadata", {})
            if metadata.get("resourceVersion"):
                raise bad_request("resourceVersion should not be set on objects to be created")
            if not metadata.get("name"):
                metadata["name"] = generate_name(metadata["generateName"], self.version)
            name = metadata["name"]
            if resource.is_namespaced:
                if ("", "namespaces", "", namespace) not in self._objects:
                    raise ApiError(
                        404,
                        "NotFound",
                        f'namespaces "{namespace}" not found',
                        details={"name": namespace, "kind": "namespaces"},
                    )
                metadata["namespace"] = namespace
            if _key(resource, namespace, name) in self._objects:
                raise already_exists(resource, name)
            made |= {"apiVersion": resource.api_version, "kind": resource.kind}
            if resource.has_status:
                made.pop("status", None)
            if resource.kind == "Pod":
                made["status"] = {"phase": "Pending"}
            self._validate(resource, made)
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": _now(), "generation": 1}
            return self._commit(resource, None, made)

    def replace(
        self, resource: Resource, namespace: str, name: str, body: Any, *, subresource: str = ""
    ) -> KubeObject:
        """Replace an object, or only its status; a stale resource version is a conflict."""
        with self._lock:
            found = self._found(resource, namespace, name)
            check_body(resource, namespace, body, name)
            return self._update(resource, found, body, subresource)

    def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        patch: Any,
        content_type: str,
        *,
        subresource: str = "",
    ) -> KubeObject:
        """Patch an object, or only its status."""
        with self._lock:
            found = self._found(resource, namespace, name)
            patched = apply_patch(found, patch, content_type, is_custom=resource.is_custom)
            return self._update(resource, found, patched, subresource)

    def delete(
        self, resource: Resource, namespace: str, name: str, options: dict[str, Any] | None = None
    ) -> KubeObject:
        """Delete an object, or mark it where finalizers hold it; preconditions are kept."""
        with self._lock:
            found = self._found(resource, namespace, name)
            wanted = (options or {}).get("preconditions") or {}
            for field in ("uid", "resourceVersion"):
                if wanted.get(field) not in (None, found["metadata"][field]):
                    raise conflict(
                        resource, name, f"Precondition failed: {field} in precondition: {wanted[field]}"
                    )
            if found["metadata"].get("finalizers"):
                marked = copy.deepcopy(found)
                marked["metadata"].setdefault("deletionTimestamp", _now())
                return self._commit(resource, found, marked)
            return self._remove(resource, found)

    def delete_collection(
        self, resource: Resource, namespace: str, *, labels: str = "", fields: str = ""
    ) -> list[KubeObject]:
        """Delete everything that the selectors match."""
        with self._lock:
            found = self.list_all(resource, namespace, labels=labels, fields=fields)
            return [
                self.delete(resource, one["metadata"].get("namespace", ""), one["metadata"]["name"])
                for one in found
            ]

    def list_all(
        self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> list[KubeObject]:
        """Return copies of everything that the selectors match, sorted by name."""
        return self.list_page(resource, namespace, labels=labels, fields=fields).items

    def list_page(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
        token: str = "",
    ) -> Page:
        """Return a page of a list; every page of one list is of the same version."""
        with self._lock:
            version, after = parse_token(token) if token else (self.version, ("", ""))
            if version < self._history.compacted:
                raise expired(
                    "The provided continue parameter is too old to display a consistent list result."
                )
            found = [
                one for one in self._as_of(version, resource) if is_selected(one, namespace, labels, fields)
            ]
            return page_of(found, version, after, limit)

    def changes_since(self, version: int, resource: Resource) -> list[Change]:
        """Return what changed after a version. Raises: ApiError (410) where the history does not reach back."""
        with self._lock:
            return self._history.since(version, resource)

    def compact(self) -> None:
        """Forget the history, as etcd's compaction does: older versions answer 410 from now on."""
        with self._lock:
            self._history.compact()

    def _update(
        self, resource: Resource, found: KubeObject, body: KubeObject, subresource: str
    ) -> KubeObject:
        name = found["metadata"]["name"]
        given = body.get("metadata") or {}
        if given.get("resourceVersion") not in (None, "", found["metadata"]["resourceVersion"]):
            raise conflict(resource, name)
        if given.get("uid") not in (None, found["metadata"]["uid"]):
            raise conflict(resource, name, "Precondition failed: UID in precondition")
        made = copy.deepcopy(found)
        if subresource == "status":
            made["status"] = copy.deepcopy(body.get("status") or {})
        else:
            kept = {key: value for key, value in found.items() if key in ("apiVersion", "kind")}
            made = {**copy.deepcopy(body), **kept}
            fixed = (
                "name",
                "namespace",
                "uid",
                "creationTimestamp",
                "deletionTimestamp",
                "generation",
                "resourceVersion",
            )
            made["metadata"] = {
                **(made.get("metadata") or {}),
                **{key: found["metadata"][key] for key in fixed if key in found["metadata"]},
            }
            if resource.has_status:
                made.pop("status", None)
                if "status" in found:
                    made["status"] = copy.deepcopy(found["status"])
            self._validate(resource, made)
        if made == found:
            return copy.deepcopy(found)
        if made.get("spec") != found.get("spec"):
            made["metadata"]["generation"] = found["metadata"]["generation"] + 1
        if made["metadata"].get("deletionTimestamp") and not made["metadata"].get("finalizers"):
            return self._remove(resource, found)
        return self._commit(resource, found, made)

    def _commit(self, resource: Resource, before: KubeObject | None, after: KubeObject) -> KubeObject:
        after["metadata"]["resourceVersion"] = str(self._history.advance())
        metadata = after["metadata"]
        self._objects[_key(resource, metadata.get("namespace", ""), metadata["name"])] = (resource, after)
        self._remember(resource, before, after)
        return copy.deepcopy(after)

    def _remove(self, resource: Resource, found: KubeObject) -> KubeObject:
        metadata = found["metadata"]
        del self._objects[_key(resource, metadata.get("namespace", ""), metadata["name"])]
        last = copy.deepcopy(found)
        last["metadata"]["resourceVersion"] = str(self._history.advance())
        self._remember(resource, last, None)
        self._collect(metadata["uid"], metadata["name"] if resource.kind == "Namespace" else None)
        return copy.deepcopy(last)

    def _collect(self, owner_uid: str, namespace: str | None) -> None:
        """Remove what the deleted object owned, or what was in the deleted namespace."""
        for resource, one in list(self._objects.values()):
            metadata = one["metadata"]
            owners = {owner.get("uid") for owner in metadata.get("ownerReferences", ())}
            is_orphaned = owner_uid in owners and len(owners) == 1
            is_inside = (
                namespace is not None and resource.is_namespaced and metadata.get("namespace") == namespace
            )
            if (is_orphaned or is_inside) and _key(
                resource, metadata.get("namespace", ""), metadata["name"]
            ) in self._objects:
                self._remove(resource, one)

    def _remember(self, resource: Resource, before: KubeObject | None, after: KubeObject | None) -> None:
        self._history.remember(resource, before, after)
        for listener in tuple(self._listeners):
            listener()

    def _found(self, resource: Resource, namespace: str, name: str) -> KubeObject:
        try:
            return self._objects[_key(resource, namespace, name)][1]
        except KeyError:
            raise not_found(resource, name) from None

    def _validate(self, resource: Resource, made: KubeObject) -> None:
        validator = self._validators.get(resource.plural)
        objection = validator(made) if validator else None
        if objection:
            raise invalid(resource, made["metadata"].get("name", ""), *objection)

    def _as_of(self, version: int, resource: Resource) -> Iterable[KubeObject]:
        state = {sort_key(one): one for kind, one in self._objects.values() if kind == resource}
        return self._history.undone(state, version, resource).values()


def is_selected(one: KubeObject, namespace: str, labels: str, fields: str) -> bool:
    """Tell whether an object is in the namespace ("" for all) and matches both selectors."""
    metadata = one["metadata"]
    return (
        namespace in ("", metadata.get("namespace", ""))
        and matches_labels(labels, metadata.get("labels") or {})
        and matches_fields(fields, one)
    )


def _key(resource: Resource, namespace: str, name: str) -> Key:
    return (resource.group, resource.plural, namespace if resource.is_namespaced else "", name)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
