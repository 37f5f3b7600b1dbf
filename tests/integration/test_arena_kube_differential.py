"""The kit's API server held against a real one: the same calls, the same answers, through the real `kubernetes` client.

The real half runs where KUBECONFIG points at a cluster. It makes ConfigMaps of its own in `default`, and takes them away.
"""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skep.arena.driver import StopToken
from skep.arena.simkube import SimKubeOptions
from skep.arena.simkube.api import KubeApi, KubeError
from skep.arena.simkube.driver import connect
from skep.testkit.kube import FakeKubeApi

MERGE = "application/merge-patch+json"


SERVERS = ["fake", *(["real"] if os.environ.get("KUBECONFIG") else [])]


@pytest.fixture(params=SERVERS)
def any_api(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KubeApi]:
    if request.param == "real":
        found = connect(SimKubeOptions())
        yield found
        found.close()
        return
    with FakeKubeApi() as server:
        made = connect(SimKubeOptions(kubeconfig=server.kubeconfig(tmp_path / "config")))
        yield made
        made.close()


MAPS = "/api/v1/namespaces/default/configmaps"


def code_of(api: KubeApi, verb: str, path: str, method: str, **given: Any) -> tuple[int, str]:
    with pytest.raises(KubeError) as told:
        api.call(verb, path, method=method, stop=StopToken(), **given)
    return told.value.code, told.value.reason


def test_server_answers_are_those_of_kubernetes(any_api: KubeApi) -> None:
    stop, name = StopToken(), f"skep-{uuid.uuid4().hex[:8]}"
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"skep": name}},
        "data": {"a": "1"},
    }
    made = any_api.call("create", MAPS, method="POST", body=body, stop=stop)
    try:
        assert made["metadata"]["uid"]
        assert made["metadata"]["resourceVersion"]
        assert code_of(any_api, "create", MAPS, "POST", body=body) == (409, "AlreadyExists")
        changed = any_api.call(
            "update", f"{MAPS}/{name}", method="PUT", body={**made, "data": {"a": "2"}}, stop=stop
        )
        assert changed["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
        assert code_of(any_api, "update", f"{MAPS}/{name}", "PUT", body={**made, "data": {"a": "3"}}) == (
            409,
            "Conflict",
        )
        patch = {"data": {"a": None, "b": "4"}}
        patched = any_api.call(
            "patch",
            f"{MAPS}/{name}",
            method="PATCH",
            body=patch,
            content_type=MERGE,
            stop=stop,
        )
        assert patched["data"] == {"b": "4"}
        listed = any_api.call("list", MAPS, method="GET", query={"labelSelector": f"skep={name}"}, stop=stop)
        assert (listed["kind"], len(listed["items"])) == ("ConfigMapList", 1)
        version = listed["metadata"]["resourceVersion"]
        any_api.call(
            "patch",
            f"{MAPS}/{name}",
            method="PATCH",
            body={"data": {"c": "5"}},
            content_type=MERGE,
            stop=stop,
        )
        event = next(
            one
            for one in any_api.watch(MAPS, version=version, name=name, timeout_s=5)
            if one["type"] != "BOOKMARK"
        )
        assert (event["type"], event["object"]["data"]["c"]) == ("MODIFIED", "5")
        guarded = {"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}}
        assert code_of(any_api, "delete", f"{MAPS}/{name}", "DELETE", body=guarded)[0] == 409
    finally:
        any_api.call("delete", f"{MAPS}/{name}", method="DELETE", stop=stop)
    assert code_of(any_api, "get", f"{MAPS}/{name}", "GET") == (404, "NotFound")
    assert code_of(any_api, "create", MAPS, "POST", body={**body, "metadata": {"name": "Not_Valid"}}) == (
        422,
        "Invalid",
    )
    assert code_of(any_api, "create", MAPS, "POST", body={**body, "kind": "Pod"})[0] == 400


class Maps:
    """ConfigMaps of one test."""

    def __init__(self, api: KubeApi) -> None:
        self.api, self.label = api, f"skep-{uuid.uuid4().hex[:8]}"

    def call(self, verb: str, method: str, name: str = "", **given: Any) -> Any:
        path = f"{MAPS}/{name}" if name else MAPS
        return self.api.call(verb, path, method=method, stop=StopToken(), **given)

    def create(self, name: str, **metadata: Any) -> Any:
        labels = {"skep": self.label}
        about = {"labels": labels, **({"name": f"{self.label}-{name}"} if name else {}), **metadata}
        return self.call("create", "POST", body={"apiVersion": "v1", "kind": "ConfigMap", "metadata": about})

    def list(self, **query: str) -> Any:
        return self.call("list", "GET", query={"labelSelector": f"skep={self.label}", **query})


@pytest.fixture
def maps(any_api: KubeApi) -> Iterator[Maps]:
    made = Maps(any_api)
    yield made
    for one in made.list()["items"]:
        name = one["metadata"]["name"]
        if one["metadata"].get("finalizers"):
            made.call("patch", "PATCH", name, body={"metadata": {"finalizers": None}}, content_type=MERGE)
        if not one["metadata"].get("deletionTimestamp"):
            made.call("delete", "DELETE", name)


def test_pages_of_a_list_are_of_one_version(maps: Maps) -> None:
    for name in ("a", "b", "c"):
        maps.create(name)
    first = maps.list(limit="2")
    maps.create("d")
    rest = maps.list(limit="2", **{"continue": first["metadata"]["continue"]})
    seen = [one["metadata"]["name"].removeprefix(f"{maps.label}-") for one in first["items"] + rest["items"]]
    assert seen == ["a", "b", "c"]
    assert not rest["metadata"].get("continue")
    assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    with pytest.raises(KubeError) as told:
        maps.list(limit="2", **{"continue": "nonsense"})
    assert told.value.code == 400


def test_finalizers_hold_a_deleted_object(maps: Maps) -> None:
    name = maps.create("held", finalizers=["skep.test/held"])["metadata"]["name"]
    maps.call("delete", "DELETE", name)
    held = maps.call("get", "GET", name)
    assert held["metadata"]["deletionTimestamp"]
    maps.call("patch", "PATCH", name, body={"metadata": {"finalizers": None}}, content_type=MERGE)
    assert code_of(maps.api, "get", f"{MAPS}/{name}", "GET") == (404, "NotFound")


def test_names_are_generated_and_nothing_changed_is_no_new_version(maps: Maps) -> None:
    made = maps.create("", generateName=f"{maps.label}-")
    name = made["metadata"]["name"]
    assert name.startswith(f"{maps.label}-")
    assert len(name) > len(maps.label) + 1
    again = maps.call("update", "PUT", name, body=made)
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    other = {**made, "metadata": {**made["metadata"], "uid": "00000000-0000-0000-0000-000000000000"}}
    assert code_of(maps.api, "update", f"{MAPS}/{name}", "PUT", body=other)[0] == 409


def test_a_watch_resumes_where_a_list_ended_and_tells_the_end(maps: Maps) -> None:
    name = maps.create("watched")["metadata"]["name"]
    version = maps.list()["metadata"]["resourceVersion"]
    maps.call("patch", "PATCH", name, body={"data": {"a": "1"}}, content_type=MERGE)
    maps.call("delete", "DELETE", name)
    seen = []
    for event in maps.api.watch(MAPS, version=version, name=name, timeout_s=5):
        if event["type"] != "BOOKMARK":
            seen.append(event["type"])
        if event["type"] == "DELETED":
            break
    assert seen == ["MODIFIED", "DELETED"]


def test_what_a_user_may_do_is_answered(any_api: KubeApi) -> None:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "create", "resource": "configmaps", "namespace": "default"}},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = any_api.call("review", path, method="POST", body=review, stop=StopToken())
    assert answer["status"]["allowed"] is True
