"""The calls that the driver makes to a Kubernetes API server, with bounded retries; the one place that translates errors.

A 429 is retried after what the server asks, a 5xx or a lost connection after a growing delay; both at most
`TRIES_MAX` times. 401 and 403 name the verb and the resource to grant. Answers are plain JSON.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import urllib3.exceptions
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from skep.arena.driver import StopToken
from skep.errors.arena import DriverForbidden, DriverUnavailable

TRIES_MAX: Final = 6
BACKOFF_S: Final = 0.2
RETRY_AFTER_S_MAX: Final = 30.0
REQUEST_S_MAX: Final = 30.0
_RETRIED: Final = (429, 500, 502, 503, 504)
_REFUSED: Final = (401, 403)
GONE: Final = 410


class KubeError(Exception):
    """An answer that the caller must judge: its HTTP code and Kubernetes' reason."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


class KubeApi:
    """One API server. Safe to use from one thread at a time."""

    def __init__(self, configuration: client.Configuration) -> None:
        configuration.retries = False
        self._client = client.ApiClient(configuration)
        self.host = configuration.host

    def call(
        self,
        verb: str,
        path: str,
        *,
        method: str,
        stop: StopToken,
        body: Any = None,
        query: dict[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Any:
        """Make a call and return its JSON; `verb` and `path` name it in errors.

        Raises: KubeError (4xx to be judged), DriverForbidden, DriverUnavailable, StepCancelled.
        """
        delay_s = BACKOFF_S
        for attempt in range(TRIES_MAX):
            try:
                return self._once(path, method, body, query, content_type)
            except ApiException as error:
                if error.status in _REFUSED:
                    raise self._refused(verb, path, error) from error
                if error.status not in _RETRIED:
                    raise _judged(error) from error
                last: Exception = error
                wait_s = _retry_after(error) or delay_s
            except (urllib3.exceptions.HTTPError, OSError) as error:
                last, wait_s = error, delay_s
            delay_s *= 2
            if attempt + 1 < TRIES_MAX and stop.wait(wait_s):
                stop.check()
        raise DriverUnavailable(
            f"{self.host}: {verb} {path} failed {TRIES_MAX} times: {last}", host=self.host
        ) from last

    def watch(self, path: str, *, version: str, name: str, timeout_s: int) -> Iterator[dict[str, Any]]:
        """Yield the events of one object until the server ends the stream. Raises: KubeError (410 and others)."""
        query = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(timeout_s),
            "fieldSelector": f"metadata.name={name}",
        }
        try:
            response = self._request(path, "GET", None, query, "application/json", read_s=timeout_s + 5.0)
        except ApiException as error:
            if error.status in _REFUSED:
                raise self._refused("watch", path, error) from error
            raise _judged(error) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise KubeError(0, "Dropped", str(error)) from error
        try:
            yield from _events(response)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise KubeError(0, "Dropped", str(error)) from error
        finally:
            response.close()
            response.release_conn()

    def close(self) -> None:
        """Close the connections."""
        self._client.rest_client.pool_manager.clear()

    def _once(
        self, path: str, method: str, body: Any, query: dict[str, Any] | None, content_type: str
    ) -> Any:
        response = self._request(path, method, body, query or {}, content_type, read_s=REQUEST_S_MAX)
        try:
            return json.loads(response.data or b"{}")
        finally:
            response.release_conn()

    def _request(
        self, path: str, method: str, body: Any, query: dict[str, Any], content_type: str, *, read_s: float
    ) -> Any:
        method_, url, headers, body_, post = self._client.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        raw = self._client.rest_client.pool_manager.request(
            method_,
            url,
            headers={key: value for key, value in headers.items() if value},
            body=None if body_ is None else json.dumps(body_),
            timeout=urllib3.Timeout(connect=10.0, read=read_s),
            retries=False,
            preload_content=False,
        )
        del post
        if raw.status >= 400:  # noqa: PLR2004 - HTTP's first error
            data = raw.read().decode(errors="replace")
            raw.release_conn()
            error = ApiException(status=raw.status, reason=raw.reason)
            error.body, error.headers = data, raw.headers
            raise error
        if "watch" not in query:
            raw.read(cache_content=True)
        return raw

    def _refused(self, verb: str, path: str, error: ApiException) -> DriverForbidden:
        detail = _status(error).get("message") or error.reason
        return DriverForbidden(
            f"{self.host}: {detail}; grant `{verb}` on {path} to the user of this kubeconfig",
            host=self.host,
            verb=verb,
        )


def _events(response: Any) -> Iterator[dict[str, Any]]:
    kept = b""
    for chunk in response.stream(65536, decode_content=True):
        *lines, kept = (kept + chunk).split(b"\n")
        for line in filter(None, lines):
            event = json.loads(line)
            if event.get("type") == "ERROR":
                status = event.get("object") or {}
                raise KubeError(
                    int(status.get("code") or 0),
                    status.get("reason", ""),
                    status.get("message", "watch failed"),
                )
            yield event


def _status(error: ApiException) -> dict[str, Any]:
    try:
        found = json.loads(error.body or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _judged(error: ApiException) -> KubeError:
    status = _status(error)
    return KubeError(error.status or 0, status.get("reason", ""), status.get("message") or str(error.reason))


def _retry_after(error: ApiException) -> float | None:
    try:
        wanted = float((error.headers or {}).get("Retry-After", ""))
    except ValueError:
        return None
    return min(max(wanted, 0.0), RETRY_AFTER_S_MAX)


ApiFactory = Callable[[], KubeApi]
