"""One simulation a cluster: a Kubernetes Lease that a driver holds from create to delete."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from skep.arena.driver import StopToken
from skep.arena.simkube.api import KubeApi, KubeError
from skep.arena.simkube.manifest import MANAGED_BY
from skep.errors.arena import DriverUnavailable

LEASE: Final = "skep-arena"
CONFLICT, NOT_FOUND = 409, 404
POLL_S: Final = 1.0


class ClusterLease:
    """Held by at most one driver; one that was not renewed for `duration_s` may be taken over."""

    def __init__(self, api: KubeApi, namespace: str, holder: str, duration_s: int) -> None:
        self._api, self._holder, self._duration_s = api, holder, duration_s
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._is_held = False

    def acquire(self, *, within_s: float, stop: StopToken) -> None:
        """Take it, waiting for its holder. Raises: DriverUnavailable after `within_s`."""
        waited_s = 0.0
        while not self._try(stop):
            if waited_s >= within_s:
                raise DriverUnavailable(
                    f"{self._api.host}: another simulation holds the lease {LEASE} for over {within_s:g} s; "
                    f"wait, or `kubectl delete lease {LEASE}` if it is dead",
                    host=self._api.host,
                )
            stop.wait(POLL_S)
            stop.check()
            waited_s += POLL_S
        self._is_held = True

    def renew(self, stop: StopToken) -> None:
        """Say that the holder lives. Raises: DriverUnavailable where it was taken over."""
        if not self._try(stop):
            raise DriverUnavailable(
                f"{self._api.host}: the lease {LEASE} was taken over", host=self._api.host
            )

    def release(self, stop: StopToken) -> None:
        """Give it back; one that is gone or another's is left alone."""
        if not self._is_held:
            return
        self._is_held = False
        found = self._find(stop)
        if found is None or found["spec"].get("holderIdentity") != self._holder:
            return
        options = {"preconditions": {"resourceVersion": found["metadata"]["resourceVersion"]}}
        try:
            self._api.call("delete", f"{self._path}/{LEASE}", method="DELETE", body=options, stop=stop)
        except KubeError as error:
            if error.code not in (CONFLICT, NOT_FOUND):
                raise DriverUnavailable(f"{self._api.host}: {error}", host=self._api.host) from error

    def _try(self, stop: StopToken) -> bool:
        found = self._find(stop)
        now = datetime.now(UTC)
        spec = {
            "holderIdentity": self._holder,
            "leaseDurationSeconds": self._duration_s,
            "renewTime": _micro(now),
            "acquireTime": _micro(now),
        }
        try:
            if found is None:
                lease = {
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": {"name": LEASE, "labels": MANAGED_BY},
                    "spec": spec,
                }
                self._api.call("create", self._path, method="POST", body=lease, stop=stop)
                return True
            if found["spec"].get("holderIdentity") != self._holder and not _is_expired(found["spec"], now):
                return False
            self._api.call(
                "update", f"{self._path}/{LEASE}", method="PUT", body={**found, "spec": spec}, stop=stop
            )
        except KubeError as error:
            if error.code in (CONFLICT, NOT_FOUND) and error.reason != "Invalid":
                return False
            raise DriverUnavailable(
                f"{self._api.host}: lease {LEASE}: {error}", host=self._api.host
            ) from error
        return True

    def _find(self, stop: StopToken) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._api.call("get", f"{self._path}/{LEASE}", method="GET", stop=stop)
        except KubeError as error:
            if error.code == NOT_FOUND:
                return None
            raise DriverUnavailable(
                f"{self._api.host}: lease {LEASE}: {error}", host=self._api.host
            ) from error
        return found


def _micro(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _is_expired(spec: dict[str, Any], now: datetime) -> bool:
    renewed = spec.get("renewTime")
    if not renewed:
        return True
    moment = datetime.fromisoformat(renewed)
    return now > moment + timedelta(seconds=int(spec.get("leaseDurationSeconds") or 0))
