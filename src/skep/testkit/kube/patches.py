"""The three patch formats that the API takes: JSON merge (RFC 7386), JSON patch (RFC 6902), strategic merge.

Strategic merge is done for what the kit's resources need: maps merge, lists of maps that have `name` merge by it,
other lists are replaced, and `$patch: delete` removes. Custom resources refuse it, as the real server does.
"""

import copy
from typing import Any, Final

from skep.testkit.kube.status import ApiError, bad_request, unsupported_media_type

JSON, MERGE, STRATEGIC = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)
_MISSING: Final = object()


def apply_patch(found: dict[str, Any], patch: Any, content_type: str, *, is_custom: bool) -> dict[str, Any]:
    """Return the patched copy. Raises: ApiError (400, 415, 422)."""
    if content_type == JSON:
        return _json_patch(found, patch)
    if not isinstance(patch, dict):
        raise bad_request("a merge patch is an object")
    if content_type == MERGE:
        return dict(merge(copy.deepcopy(found), patch))
    if content_type == STRATEGIC and not is_custom:
        return dict(_strategic(copy.deepcopy(found), patch))
    raise unsupported_media_type(content_type)


def merge(target: Any, patch: Any) -> Any:
    """Return an RFC 7386 merge: null removes, maps merge, anything else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = target if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def _strategic(target: Any, patch: Any) -> Any:
    if (
        isinstance(patch, list)
        and isinstance(target, list)
        and all(_is_named(one) for one in (*target, *patch))
    ):
        by_name = {one["name"]: one for one in target}
        for one in patch:
            if one.get("$patch") == "delete":
                by_name.pop(one["name"], None)
            else:
                by_name[one["name"]] = _strategic(by_name.get(one["name"], {}), one)
        return list(by_name.values())
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = target if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _strategic(result.get(key), value)
    return result


def _is_named(one: Any) -> bool:
    return isinstance(one, dict) and isinstance(one.get("name"), str)


def _json_patch(found: dict[str, Any], operations: Any) -> dict[str, Any]:
    if not isinstance(operations, list):
        raise bad_request("a JSON patch is a list of operations")
    document: Any = copy.deepcopy(found)
    for operation in operations:
        try:
            document = _operate(document, operation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ApiError(
                422, "Invalid", f"the server rejected our request due to an error in our request: {error!r}"
            ) from error
    if not isinstance(document, dict):
        raise bad_request("the patched document is no object")
    return document


def _operate(document: Any, operation: dict[str, Any]) -> Any:
    verb, path = operation["op"], _pointer(operation["path"])
    if verb in ("add", "replace"):
        return _put(document, path, copy.deepcopy(operation["value"]), is_insert=verb == "add")
    if verb == "remove":
        _take(document, path)
        return document
    if verb == "test":
        if _get(document, path) != operation["value"]:
            raise ValueError(f"testing value {operation['path']} failed")
        return document
    if verb in ("copy", "move"):
        source = _pointer(operation["from"])
        value = copy.deepcopy(_get(document, source))
        if verb == "move":
            _take(document, source)
        return _put(document, path, value, is_insert=True)
    raise ValueError(f"unknown operation {verb}")


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise ValueError(f"{text!r} is no JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _get(document: Any, path: list[str]) -> Any:
    for part in path:
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


def _put(document: Any, path: list[str], value: Any, *, is_insert: bool) -> Any:
    if not path:
        return value
    parent = _get(document, path[:-1])
    last = path[-1]
    if isinstance(parent, list):
        if last == "-":
            parent.append(value)
        elif is_insert:
            parent.insert(int(last), value)
        else:
            parent[int(last)] = value
    else:
        if not is_insert and last not in parent:
            raise KeyError(last)
        parent[last] = value
    return document


def _take(document: Any, path: list[str]) -> None:
    parent = _get(document, path[:-1])
    if isinstance(parent, list):
        del parent[int(path[-1])]
    else:
        del parent[path[-1]]
