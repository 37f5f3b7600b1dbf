"""Asking a daemon over HTTP, and keeping what it answered."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any

ASK_S_MAX = 20.0


@dataclass(frozen=True)
class Response:
    """An answer. `body` is parsed where it is JSON."""

    status: int
    text: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> Any:
        """The JSON, or None."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None

    @property
    def error(self) -> dict[str, Any]:
        """The error object; empty when there is none."""
        body = self.body
        found = body.get("error") if isinstance(body, dict) else None
        return found if isinstance(found, dict) else {}


def ask(
    url: str,
    path: str,
    body: Any = None,
    *,
    method: str | None = None,
    token: str = "",
    within_s: float = ASK_S_MAX,
) -> Response:
    """Send one request, JSON both ways; any status is an answer. Raises: OSError when nobody answers."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"} if data is not None else {}
    if token:
        headers["authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url + path, data, headers, method=method)  # noqa: S310 - http only, ours
    try:
        with urllib.request.urlopen(request, timeout=within_s) as reply:  # noqa: S310 - as above
            return Response(reply.status, reply.read().decode("utf-8", "replace"), dict(reply.headers))
    except urllib.error.HTTPError as error:
        with error:
            return Response(error.code, error.read().decode("utf-8", "replace"), dict(error.headers))
