"""One replica as the gateway uses it: where it is, how busy, whether it is trusted just now."""

from collections import deque
from typing import Any
from urllib.parse import urlsplit

from skep.policy.placement import ReplicaLoad
from skep.wire.node import ReplicaReport

SLOTS_UNKNOWN = 16
"""Slots of an engine that does not tell: enough to keep it busy, few enough to spread."""

EJECT_S_FIRST, EJECT_S_MAX = 2.0, 60.0
FAULTS_MAX = 5
"""Answers of 5xx in a row that eject a replica; a refused or cut connection does so at once."""


class Replica:
    """Counts what this gateway has in flight there, and keeps its idle connections.

    `others` is what the last heartbeat showed above our own requests: other gateways and other users of the worker.
    """

    __slots__ = (
        "authorization",
        "context",
        "ejected_until_s",
        "ejections",
        "faults",
        "host",
        "idle",
        "in_flight",
        "instance",
        "is_tls",
        "key",
        "node_id",
        "others",
        "path",
        "peak",
        "pool_id",
        "port",
        "priority",
        "replica_id",
        "slots_total",
        "state",
        "trial",
        "url",
    )

    def __init__(self, node_id: str, pool_id: str, report: ReplicaReport, *, priority: int = 0) -> None:
        self.node_id, self.pool_id, self.replica_id = node_id, pool_id, report.replica_id
        self.key = f"{node_id}/{pool_id}/{report.replica_id}"
        self.instance = report.instance
        self.url = report.url
        parts = urlsplit(report.url)
        self.is_tls = parts.scheme == "https"
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if self.is_tls else 80)
        self.path = parts.path.rstrip("/")
        self.authorization = f"Bearer {report.token}".encode() if report.token else b""
        self.idle: deque[Any] = deque()
        self.in_flight = self.peak = self.others = 0
        self.faults = self.ejections = 0
        self.ejected_until_s = 0.0
        self.trial = False
        self.priority = priority
        self.update(report, priority=priority)

    def is_same(self, report: ReplicaReport) -> bool:
        """True when a report is about this very process at this place."""
        return report.instance == self.instance and report.url == self.url

    def update(self, report: ReplicaReport, *, priority: int) -> None:
        """Take over a heartbeat's figures."""
        self.state = report.state
        self.slots_total = report.slots_total or SLOTS_UNKNOWN
        self.priority = priority
        running = max(report.slots_total - report.slots_free, 0) + report.queue_depth
        self.others = max(running - max(self.peak, self.in_flight), 0)
        self.peak = self.in_flight

    def is_trusted(self, now_s: float) -> bool:
        """True when it may get work: never ejected, or its time is over and no trial is under way."""
        return self.ejected_until_s == 0.0 or (now_s >= self.ejected_until_s and not self.trial)

    def load(self) -> ReplicaLoad:
        """Return what placement needs to know."""
        return ReplicaLoad(
            replica_id=self.key,
            pool_id=self.pool_id,
            node_id=self.node_id,
            slots_total=self.slots_total,
            busy=self.in_flight + self.others,
            priority=self.priority,
        )

    def take(self) -> None:
        """One more request of ours is there; after an ejection it is the trial."""
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        self.trial = self.ejected_until_s > 0.0

    def give_back(self) -> None:
        """One of our requests there has ended, in whatever way."""
        self.in_flight -= 1
        self.trial = False

    def succeeded(self) -> None:
        """An answer came: all is forgiven."""
        self.faults = self.ejections = 0
        self.ejected_until_s = 0.0

    def failed(self, now_s: float, *, is_cut: bool) -> bool:
        """Count a failure; True when it is ejected by it. `is_cut`: the connection was refused or broke."""
        self.faults += 1
        if not is_cut and self.faults < FAULTS_MAX:
            return False
        if now_s < self.ejected_until_s:
            return False
        self.ejected_until_s = now_s + min(EJECT_S_FIRST * 2**self.ejections, EJECT_S_MAX)
        self.ejections = min(self.ejections + 1, 16)
        self.faults = 0
        return True
