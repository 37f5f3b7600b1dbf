"""Lists in pages: sorted by namespace and name, each page of the version of the first, its end told by a token."""

import base64
import copy
import json
from typing import Any, NamedTuple

from skep.testkit.kube.status import bad_request


class Page(NamedTuple):
    """A part of a list, the version it is of, and where to go on (empty at the end)."""

    items: list[dict[str, Any]]
    version: int
    next_token: str
    remaining: int


def sort_key(one: dict[str, Any]) -> tuple[str, str]:
    """Return an object's place in a list."""
    return (one["metadata"].get("namespace", ""), one["metadata"]["name"])


def page_of(found: list[dict[str, Any]], version: int, after: tuple[str, str], limit: int) -> Page:
    """Return copies of at most `limit` objects (0: all) that come after a place."""
    rest = sorted((one for one in found if sort_key(one) > after), key=sort_key)
    page = rest[:limit] if limit else rest
    more = len(rest) - len(page)
    next_token = _make_token(version, sort_key(page[-1])) if more else ""
    return Page(copy.deepcopy(page), version, next_token, more)


def parse_token(token: str) -> tuple[int, tuple[str, str]]:
    """Return the version and the place that a token names. Raises: ApiError (400)."""
    try:
        version, namespace, name = json.loads(base64.urlsafe_b64decode(token))
        return int(version), (str(namespace), str(name))
    except (ValueError, TypeError) as error:
        raise bad_request(f"continue key is not valid: {error}") from error


def _make_token(version: int, after: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps([version, *after]).encode()).decode()
