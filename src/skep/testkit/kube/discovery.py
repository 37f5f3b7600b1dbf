"""What discovery answers: versions, groups, and the resources of each."""

from collections.abc import Iterable
from typing import Any

from skep.testkit.kube.resources import Resource

VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def version_info() -> dict[str, str]:
    """Answer `/version`."""
    given = {
        "major": "1",
        "minor": "34",
        "gitVersion": "v1.34.0+skep-fake",
        "platform": "linux/amd64",
        "compiler": "none",
    }
    return given | dict.fromkeys(("buildDate", "gitCommit", "gitTreeState", "goVersion"), "")


def api_versions() -> dict[str, Any]:
    """Answer `/api`."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def api_groups(groups: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Answer `/apis`."""
    found = [(group, {"groupVersion": f"{group}/{version}", "version": version}) for group, version in groups]
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [
            {"name": group, "versions": [version], "preferredVersion": version} for group, version in found
        ],
    }


def api_resources(group: str, version: str, resources: Iterable[Resource]) -> dict[str, Any]:
    """Answer `/api/v1` and `/apis/<group>/<version>`."""
    listed: list[dict[str, Any]] = []
    for one in resources:
        listed.append(_listed(one.plural, one, VERBS))
        if one.has_status:
            listed.append(_listed(f"{one.plural}/status", one, ["get", "patch", "update"]))
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": listed,
    }


def _listed(name: str, one: Resource, verbs: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "singularName": one.singular,
        "namespaced": one.is_namespaced,
        "kind": one.kind,
        "verbs": verbs,
    }
