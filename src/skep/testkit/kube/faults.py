"""What the fake API server can be told to do wrong, exactly as often as it is told."""

import threading
from typing import NamedTuple

from skep.testkit.kube.status import ApiError, too_many_requests


class Call(NamedTuple):
    """One request that the server saw, for tests to look at."""

    verb: str
    resource: str
    namespace: str
    name: str
    user: str


class _Failure(NamedTuple):
    verb: str
    resource: str
    error: ApiError | None


class Faults:
    """A list of failures to come, each used once, in the order they were asked for. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[_Failure] = []
        self._watch_changes_left: int | None = None
        self.bookmark_every_s = 1.0

    def fail(self, verb: str, resource: str, error: ApiError, *, times: int = 1) -> None:
        """Answer the next `times` matching requests with this error. Verbs are RBAC's (`list`, `watch`, …)."""
        with self._lock:
            self._pending += [_Failure(verb, resource, error)] * times

    def throttle(self, verb: str, resource: str, *, times: int = 1, retry_after_s: int = 1) -> None:
        """Answer 429 with Retry-After."""
        self.fail(verb, resource, too_many_requests(retry_after_s), times=times)

    def cut_connection(self, verb: str, resource: str, *, times: int = 1) -> None:
        """Close the connection without an answer."""
        with self._lock:
            self._pending += [_Failure(verb, resource, None)] * times

    def drop_watches_after(self, changes: int | None) -> None:
        """Cut each watch's connection, mid-stream, after this many events; None stops doing so."""
        with self._lock:
            self._watch_changes_left = changes

    def watch_budget(self) -> int | None:
        """Return after how many events a watch that starts now is cut."""
        return self._watch_changes_left

    def take(self, verb: str, resource: str) -> _Failure | None:
        """Return the failure that this request shall meet, and forget it."""
        with self._lock:
            for failure in self._pending:
                if failure.verb == verb and failure.resource == resource:
                    self._pending.remove(failure)
                    return failure
        return None

    @property
    def left(self) -> int:
        """How many failures no request has met yet."""
        return len(self._pending)
