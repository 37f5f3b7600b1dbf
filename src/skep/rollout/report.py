"""What a sync and a status tell: frozen records that print as a table or as JSON."""

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec


class HostOutcome(StrEnum):
    """How one host ended."""

    INSTALLED = "installed"
    UPGRADED = "upgraded"
    ALREADY = "already_installed"
    REMOVED = "removed"
    ROLLED_BACK = "rolled_back"
    PLANNED = "planned"
    FAILED = "failed"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"


BAD = frozenset({HostOutcome.FAILED, HostOutcome.UNKNOWN, HostOutcome.SKIPPED})


class StepReport(msgspec.Struct, frozen=True, kw_only=True):
    """One step of one host. `outcome`: done, failed or planned."""

    name: str
    outcome: str
    seconds: float = 0.0
    detail: str = ""


class HostReport(msgspec.Struct, frozen=True, kw_only=True):
    """One host. `retries` counts connections that were made again; `error_code` is stable."""

    alias: str
    status: HostOutcome
    key: str = ""
    workers: tuple[str, ...] = ()
    workers_removed: tuple[str, ...] = ()
    steps: tuple[StepReport, ...] = ()
    seconds: float = 0.0
    retries: int = 0
    error: str = ""
    error_code: str = ""


class SyncMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """What a run says of itself, to be compared with other runs. Times of steps are summed over the hosts.

    But `bring_s`, what is fetched and built here (`via = "controller"`), is the longest wait: hosts of a kind share it.
    `speed_up` is sequential over concurrent time; `failure_modes` counts error codes; `recovered` are hosts that ended well
    after a retry.
    """

    bring_s: float = 0.0
    send_s: float = 0.0
    clone_s: float = 0.0
    build_s: float = 0.0
    speed_up: float = 1.0
    success_rate: float = 1.0
    failure_modes: dict[str, int] = {}
    recovered: int = 0


class SyncReport(msgspec.Struct, frozen=True, kw_only=True):
    """One run of `skep sync`. `sequential_s` is what the hosts would have taken one after the other.

    `workers_failed` are those declared on hosts that failed: whether they are there is not known.
    """

    hives_installed: int
    hives_already_installed: int
    hives_removed: int
    hives_failed: int
    workers_installed: int
    workers_already_installed: int
    workers_removed: int
    workers_failed: int
    duration_s: float
    sequential_s: float
    retries: int
    hives: tuple[HostReport, ...]
    metrics: SyncMetrics = SyncMetrics()

    @property
    def is_success(self) -> bool:
        """True when every host is in its declared state (or would be, for a dry run)."""
        return not any(hive.status in BAD for hive in self.hives)


def summarize(
    hives: Iterable[HostReport], duration_s: float, *, workers_declared: Mapping[str, int]
) -> SyncReport:
    """Count what happened. `workers_declared` maps aliases to how many engines the file wants there."""
    rows = tuple(hives)

    def count(*outcomes: HostOutcome) -> int:
        return sum(row.status in outcomes for row in rows)

    good = [row for row in rows if row.status not in BAD | {HostOutcome.PLANNED}]
    there = [row for row in good if row.status is not HostOutcome.ROLLED_BACK]
    failed = [row for row in rows if row.status in BAD]
    return SyncReport(
        hives_installed=count(HostOutcome.INSTALLED, HostOutcome.UPGRADED, HostOutcome.ROLLED_BACK),
        hives_already_installed=count(HostOutcome.ALREADY),
        hives_removed=count(HostOutcome.REMOVED),
        hives_failed=count(HostOutcome.FAILED, HostOutcome.UNKNOWN, HostOutcome.SKIPPED),
        workers_installed=sum(len(row.workers) for row in good),
        workers_already_installed=sum(workers_declared.get(row.alias, 0) - len(row.workers) for row in there),
        workers_removed=sum(len(row.workers_removed) for row in good),
        workers_failed=sum(workers_declared.get(row.alias, 0) for row in failed),
        duration_s=duration_s,
        sequential_s=sum(row.seconds for row in rows),
        retries=sum(row.retries for row in rows),
        hives=rows,
        metrics=_measured(rows, duration_s),
    )


def _measured(rows: tuple[HostReport, ...], duration_s: float) -> SyncMetrics:
    def spent_s(*names: str) -> float:
        return round(sum(step.seconds for row in rows for step in row.steps if step.name in names), 4)

    good = [row for row in rows if row.status not in BAD]
    return SyncMetrics(
        bring_s=max(
            (step.seconds for row in rows for step in row.steps if step.name == "bring"), default=0.0
        ),
        send_s=spent_s("send"),
        clone_s=spent_s("clone", "download"),
        build_s=spent_s("build", "stage", "engines"),
        speed_up=round(sum(row.seconds for row in rows) / duration_s, 2) if duration_s else 1.0,
        success_rate=round(len(good) / len(rows), 4) if rows else 1.0,
        failure_modes=dict(Counter(row.error_code for row in rows if row.error_code)),
        recovered=sum(row.retries > 0 for row in good),
    )


class Issue(StrEnum):
    """How a host differs from its declaration."""

    MISSING_HIVE = "missing_hive"
    EXTRA_HIVE = "extra_hive"
    MISSING_WORKER = "missing_worker"
    EXTRA_WORKER = "extra_worker"
    VERSION = "version"
    FEATURES = "features"
    CONFIG = "config"
    UNREACHABLE = "unreachable"
    STOPPED = "stopped"
    UNDETERMINED = "undetermined"


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """One difference."""

    hive: str
    issue: Issue
    details: str


class StatusReport(msgspec.Struct, frozen=True, kw_only=True):
    """`status`: ok, drift, or unknown when a host or what it should have could not be read and no drift is known."""

    status: str
    drift: tuple[Drift, ...]
    hives: int
