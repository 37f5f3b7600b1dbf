"""The fake Kubernetes API server answers the real `kubernetes` client as a real one would."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException

from skep.testkit.kube import ADMIN_TOKEN, FakeKubeApi, Rule

POD = {
    "metadata": {"name": "a", "labels": {"app": "web"}},
    "spec": {"containers": [{"name": "c", "image": "i"}]},
}


@pytest.fixture
def api() -> Iterator[FakeKubeApi]:
    with FakeKubeApi() as server:
        server.faults.bookmark_every_s = 0.05
        yield server


def client_of(api: FakeKubeApi, token: str = ADMIN_TOKEN) -> client.ApiClient:
    configuration = client.Configuration()
    configuration.host = api.url
    configuration.api_key = {"authorization": f"Bearer {token}"}
    configuration.retries = False
    return client.ApiClient(configuration)


@pytest.fixture
def core(api: FakeKubeApi) -> Iterator[client.CoreV1Api]:
    made = client_of(api)
    yield client.CoreV1Api(made)
    made.rest_client.pool_manager.clear()


@pytest.fixture
def custom(core: client.CoreV1Api) -> client.CustomObjectsApi:
    return client.CustomObjectsApi(core.api_client)


def raw(api: FakeKubeApi, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
    with urllib3.PoolManager() as pool:
        given = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json", **headers}
        answer = pool.request(
            method,
            api.url + path,
            headers=given,
            body=None if body is None else json.dumps(body),
            retries=False,
        )
        return answer.status, json.loads(answer.data or b"{}"), answer.headers


def status_of(error: ApiException) -> dict[str, Any]:
    return json.loads(error.body)


def pod(name: str, **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }


def test_objects_get_a_uid_a_generation_and_growing_resource_versions(core: client.CoreV1Api) -> None:
    first = core.create_namespaced_pod("default", pod("a"))
    second = core.create_namespaced_pod("default", pod("b"))
    assert first.metadata.uid != second.metadata.uid
    assert first.metadata.generation == 1
    assert int(second.metadata.resource_version) > int(first.metadata.resource_version)


def test_creating_twice_is_409_already_exists(core: client.CoreV1Api) -> None:
    core.create_namespaced_pod("default", POD)
    with pytest.raises(ApiException) as told:
        core.create_namespaced_pod("default", POD)
    assert (told.value.status, status_of(told.value)["reason"]) == (409, "AlreadyExists")


def test_stale_resource_version_is_409_conflict(core: client.CoreV1Api) -> None:
    stale = core.create_namespaced_config_map("default", {"metadata": {"name": "m"}, "data": {"a": "1"}})
    core.patch_namespaced_config_map("m", "default", {"data": {"a": "2"}})
    with pytest.raises(ApiException) as told:
        core.replace_namespaced_config_map("m", "default", stale)
    assert (told.value.status, status_of(told.value)["reason"]) == (409, "Conflict")


def test_unchanged_update_keeps_the_resource_version(core: client.CoreV1Api) -> None:
    made = core.create_namespaced_config_map("default", {"metadata": {"name": "m"}, "data": {"a": "1"}})
    again = core.replace_namespaced_config_map("m", "default", made)
    assert again.metadata.resource_version == made.metadata.resource_version


def test_missing_things_are_404(core: client.CoreV1Api, api: FakeKubeApi) -> None:
    for call in (
        lambda: core.read_namespaced_pod("none", "default"),
        lambda: core.delete_namespaced_pod("none", "default"),
        lambda: core.create_namespaced_pod("nowhere", POD),
    ):
        with pytest.raises(ApiException) as told:
            call()
        assert told.value.status == 404
    assert raw(api, "GET", "/apis/none.example/v1")[0] == 404
    assert raw(api, "GET", "/api/v1/namespaces/default/unicorns")[0] == 404


def test_bad_bodies_are_400_and_422(api: FakeKubeApi) -> None:
    pods = "/api/v1/namespaces/default/pods"
    assert raw(api, "POST", pods, {"kind": "Node", "metadata": {"name": "a"}})[0] == 400
    assert raw(api, "POST", pods, {"metadata": {"name": "a", "namespace": "other"}})[0] == 400
    assert raw(api, "POST", pods, [1])[0] == 400
    assert raw(api, "POST", pods, {"metadata": {"name": "Not_A_Name"}})[0] == 422
    assert raw(api, "POST", pods, {"metadata": {}})[0] == 422
    assert raw(api, "POST", pods, {"metadata": {"name": "a", "labels": {"k": "not valid!"}}})[0] == 422
    assert raw(api, "PUT", pods)[0] == 405


def test_status_is_apart(core: client.CoreV1Api) -> None:
    core.create_namespaced_pod("default", {**POD, "status": {"phase": "Running"}})
    assert core.read_namespaced_pod("a", "default").status.phase == "Pending"
    core.patch_namespaced_pod_status(
        "a", "default", {"status": {"phase": "Running"}, "metadata": {"labels": {"x": "y"}}}
    )
    found = core.read_namespaced_pod("a", "default")
    assert found.status.phase == "Running"
    assert found.metadata.labels == {"app": "web"}
    assert found.metadata.generation == 1


def test_merge_json_and_strategic_patches(core: client.CoreV1Api, api: FakeKubeApi) -> None:
    core.create_namespaced_pod("default", POD)
    path = "/api/v1/namespaces/default/pods/a"
    merged = raw(
        api,
        "PATCH",
        path,
        {"metadata": {"labels": {"app": None, "b": "c"}}},
        **{"Content-Type": "application/merge-patch+json"},
    )
    assert merged[1]["metadata"]["labels"] == {"b": "c"}
    operations = [
        {"op": "test", "path": "/metadata/labels/b", "value": "c"},
        {"op": "add", "path": "/metadata/labels/d~1e", "value": "f"},
    ]
    patched = raw(api, "PATCH", path, operations, **{"Content-Type": "application/json-patch+json"})
    assert patched[1]["metadata"]["labels"] == {"b": "c", "d/e": "f"}
    failing = [{"op": "test", "path": "/metadata/labels/b", "value": "x"}]
    assert raw(api, "PATCH", path, failing, **{"Content-Type": "application/json-patch+json"})[0] == 422
    side = {"spec": {"containers": [{"name": "side", "image": "s"}]}}
    both = raw(api, "PATCH", path, side, **{"Content-Type": "application/strategic-merge-patch+json"})
    assert [one["name"] for one in both[1]["spec"]["containers"]] == ["c", "side"]
    assert raw(api, "PATCH", path, {}, **{"Content-Type": "text/plain"})[0] == 415


def test_custom_resources_refuse_strategic_merge(custom: client.CustomObjectsApi, api: FakeKubeApi) -> None:
    custom.create_cluster_custom_object(
        "simkube.io", "v1", "simulations", {"metadata": {"name": "s"}, "spec": {}}
    )
    path = "/apis/simkube.io/v1/simulations/s"
    assert raw(api, "PATCH", path, {}, **{"Content-Type": "application/strategic-merge-patch+json"})[0] == 415


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("app=web", ["a", "b"]),
        ("app==web,tier!=back", ["a"]),
        ("app in (web, db)", ["a", "b", "c"]),
        ("app notin (web)", ["c", "d"]),
        ("tier", ["b"]),
        ("!app", ["d"]),
    ],
)
def test_label_selectors(core: client.CoreV1Api, selector: str, names: list[str]) -> None:
    for made in (pod("a", app="web"), pod("b", app="web", tier="back"), pod("c", app="db"), pod("d")):
        core.create_namespaced_pod("default", made)
    assert [
        one.metadata.name for one in core.list_namespaced_pod("default", label_selector=selector).items
    ] == names


def test_field_selectors(core: client.CoreV1Api) -> None:
    for name in ("a", "b"):
        core.create_namespaced_pod("default", pod(name))
    core.patch_namespaced_pod_status("b", "default", {"status": {"phase": "Running"}})
    assert [
        one.metadata.name
        for one in core.list_namespaced_pod("default", field_selector="status.phase=Running").items
    ] == ["b"]
    with pytest.raises(ApiException) as told:
        core.list_namespaced_pod("default", field_selector="spec.unknown=1")
    assert told.value.status == 400


def test_pages_of_a_list_are_of_one_version_and_expire(core: client.CoreV1Api, api: FakeKubeApi) -> None:
    for number in range(5):
        core.create_namespaced_pod("default", pod(f"p{number}"))
    first = core.list_namespaced_pod("default", limit=2)
    assert first.metadata.remaining_item_count == 3
    core.delete_namespaced_pod("p3", "default")
    core.create_namespaced_pod("default", pod("p9"))
    second = core.list_namespaced_pod("default", limit=9, _continue=first.metadata._continue)
    assert [one.metadata.name for one in second.items] == ["p2", "p3", "p4"]
    api.store.compact()
    with pytest.raises(ApiException) as told:
        core.list_namespaced_pod("default", limit=2, _continue=first.metadata._continue)
    assert told.value.status == 410


def test_watch_resumes_where_a_list_ended(core: client.CoreV1Api) -> None:
    core.create_namespaced_pod("default", pod("old"))
    version = core.list_namespaced_pod("default").metadata.resource_version
    core.create_namespaced_pod("default", pod("new"))
    core.patch_namespaced_pod("new", "default", {"metadata": {"labels": {"a": "b"}}})
    core.delete_namespaced_pod("new", "default")
    events = watch.Watch().stream(
        core.list_namespaced_pod, "default", resource_version=version, timeout_seconds=1
    )
    assert [(one["type"], one["object"].metadata.name) for one in events] == [
        ("ADDED", "new"),
        ("MODIFIED", "new"),
        ("DELETED", "new"),
    ]


def test_watch_sees_changes_live(core: client.CoreV1Api, api: FakeKubeApi) -> None:
    core.create_namespaced_pod("default", pod("p0"))
    seen: list[str] = []
    for event in watch.Watch().stream(core.list_namespaced_pod, "default", timeout_seconds=10):
        seen.append(event["object"].metadata.name)
        if len(seen) == 3:
            break
        api.store.create(api.resource("pods"), "default", pod(f"p{len(seen)}"))
    assert seen == ["p0", "p1", "p2"]


def test_selector_watch_turns_changes_of_view_into_added_and_deleted(core: client.CoreV1Api) -> None:
    version = core.list_namespaced_pod("default").metadata.resource_version
    core.create_namespaced_pod("default", pod("a", app="db"))
    core.patch_namespaced_pod("a", "default", {"metadata": {"labels": {"app": "web"}}})
    core.patch_namespaced_pod("a", "default", {"metadata": {"labels": {"app": "db"}}})
    stream = watch.Watch().stream(
        core.list_namespaced_pod,
        "default",
        label_selector="app=web",
        resource_version=version,
        timeout_seconds=1,
    )
    assert [one["type"] for one in stream] == ["ADDED", "DELETED"]


def test_bookmarks_carry_newer_versions(core: client.CoreV1Api) -> None:
    version = core.list_namespaced_pod("default").metadata.resource_version
    core.create_namespaced_config_map("default", {"metadata": {"name": "m"}})
    answer = core.list_namespaced_pod(
        "default",
        watch=True,
        resource_version=version,
        allow_watch_bookmarks=True,
        timeout_seconds=1,
        _preload_content=False,
    )
    events = [json.loads(line) for line in answer.read().splitlines()]
    assert {one["type"] for one in events} == {"BOOKMARK"}
    assert int(events[-1]["object"]["metadata"]["resourceVersion"]) > int(version)


def test_watch_of_a_compacted_version_is_an_error_event_410(core: client.CoreV1Api, api: FakeKubeApi) -> None:
    version = core.list_namespaced_pod("default").metadata.resource_version
    core.create_namespaced_pod("default", POD)
    api.store.compact()
    answer = core.list_namespaced_pod(
        "default", watch=True, resource_version=version, timeout_seconds=1, _preload_content=False
    )
    (event,) = [json.loads(line) for line in answer.read().splitlines()]
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")


def test_history_is_bounded() -> None:
    with FakeKubeApi(history_max=3) as api:
        for number in range(10):
            api.store.create(api.resource("configmaps"), "default", {"metadata": {"name": f"m{number}"}})
        assert len(api.store.changes_since(api.store.version - 2, api.resource("configmaps"))) == 2
        with pytest.raises(Exception, match="too old"):
            api.store.changes_since(2, api.resource("configmaps"))


def test_dropped_watch_breaks_mid_stream(core: client.CoreV1Api, api: FakeKubeApi) -> None:
    for name in ("a", "b", "c"):
        core.create_namespaced_pod("default", pod(name))
    api.faults.drop_watches_after(2)
    answer = core.list_namespaced_pod("default", watch=True, timeout_seconds=5, _preload_content=False)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        answer.read()


def test_throttling_answers_429_with_retry_after_once(core: client.CoreV1Api, api: FakeKubeApi) -> None:
    api.faults.throttle("list", "pods", retry_after_s=7)
    with pytest.raises(ApiException) as told:
        core.list_namespaced_pod("default")
    assert (told.value.status, told.value.headers["Retry-After"]) == (429, "7")
    assert core.list_namespaced_pod("default").items == []
    assert api.faults.left == 0


def test_rbac_refuses_in_kubernetes_words(api: FakeKubeApi) -> None:
    token = api.rbac.add_user("reader", Rule(("get", "list"), ("",), ("pods",), ("default",)))
    reader = client_of(api, token)
    core = client.CoreV1Api(reader)
    assert core.list_namespaced_pod("default").items == []
    for call in (
        lambda: core.create_namespaced_pod("default", POD),
        lambda: core.list_namespaced_pod("kube-system"),
    ):
        with pytest.raises(ApiException) as told:
            call()
        assert told.value.status == 403
        assert 'User "reader" cannot' in status_of(told.value)["message"]
    review = {"spec": {"resourceAttributes": {"verb": "create", "resource": "pods", "namespace": "default"}}}
    answer = raw(
        api,
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        review,
        Authorization=f"Bearer {token}",
    )
    assert answer[1]["status"] == {"allowed": False}
    reader.rest_client.pool_manager.clear()


def test_unknown_token_is_401(api: FakeKubeApi) -> None:
    assert raw(api, "GET", "/api/v1/pods", Authorization="Bearer nonsense")[0] == 401
    assert raw(api, "GET", "/api/v1/pods", Authorization="")[0] == 401


def test_finalizers_hold_an_object_until_they_are_gone(core: client.CoreV1Api) -> None:
    core.create_namespaced_pod("default", {**POD, "metadata": {"name": "a", "finalizers": ["x/y"]}})
    core.delete_namespaced_pod("a", "default")
    assert core.read_namespaced_pod("a", "default").metadata.deletion_timestamp is not None
    core.patch_namespaced_pod("a", "default", {"metadata": {"finalizers": None}})
    with pytest.raises(ApiException):
        core.read_namespaced_pod("a", "default")


def test_preconditions_guard_deletion(core: client.CoreV1Api) -> None:
    core.create_namespaced_pod("default", POD)
    with pytest.raises(ApiException) as told:
        core.delete_namespaced_pod("a", "default", body={"preconditions": {"uid": "other"}})
    assert told.value.status == 409


def test_dependents_and_contents_go_with_their_owner(
    core: client.CoreV1Api, custom: client.CustomObjectsApi
) -> None:
    made = custom.create_cluster_custom_object(
        "simkube.io", "v1", "simulations", {"metadata": {"name": "s"}, "spec": {}}
    )
    owner = {"apiVersion": "simkube.io/v1", "kind": "Simulation", "name": "s", "uid": made["metadata"]["uid"]}
    core.create_namespace({"metadata": {"name": "virtual"}})
    core.create_namespaced_pod("virtual", {**POD, "metadata": {"name": "owned", "ownerReferences": [owner]}})
    core.create_namespaced_pod("virtual", pod("free"))
    custom.delete_cluster_custom_object("simkube.io", "v1", "simulations", "s")
    assert [one.metadata.name for one in core.list_namespaced_pod("virtual").items] == ["free"]
    core.delete_namespace("virtual")
    assert core.list_pod_for_all_namespaces().items == []


def test_deletecollection_takes_what_a_selector_matches(core: client.CoreV1Api) -> None:
    for made in (pod("a", app="web"), pod("b", app="db")):
        core.create_namespaced_pod("default", made)
    core.delete_collection_namespaced_pod("default", label_selector="app=web")
    assert [one.metadata.name for one in core.list_namespaced_pod("default").items] == ["b"]


def test_discovery_tells_the_served_kinds(core: client.CoreV1Api) -> None:
    assert {one.name for one in core.get_api_resources().resources} >= {"pods", "pods/status", "nodes"}
    assert "simkube.io" in [one.name for one in client.ApisApi(core.api_client).get_api_versions().groups]
    assert client.VersionApi(core.api_client).get_code().major == "1"


def test_kubeconfig_leads_here(api: FakeKubeApi, tmp_path: Path) -> None:
    configuration = client.Configuration()
    config.load_kube_config(str(api.kubeconfig(tmp_path / "config")), client_configuration=configuration)
    assert configuration.host == api.url


def test_generated_names_differ(core: client.CoreV1Api) -> None:
    names = {
        core.create_namespaced_pod("default", {**POD, "metadata": {"generateName": "p-"}}).metadata.name
        for _ in range(30)
    }
    assert len(names) == 30
    assert all(name.startswith("p-") and len(name) == 7 for name in names)


def test_server_leaves_no_thread() -> None:
    with FakeKubeApi() as api:
        raw(api, "GET", "/version")
    assert not [one for one in threading.enumerate() if one.name == "skep-fake-kube"]
