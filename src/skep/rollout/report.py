"""What a sync and a status tell: frozen records that print as a table or as JSON."""

from collections.abc import Iterable
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


class SyncReport(msgspec.Struct, frozen=True, kw_only=True):
    """One run of `skep sync`. `sequential_s` is what the hosts would have taken one after the other."""

    hives_installed: int
    hives_already_installed: int
    hives_removed: int
    hives_failed: int
    workers_installed: int
    workers_removed: int
    duration_s: float
    sequential_s: float
    retries: int
    hives: tuple[HostReport, ...]

    @property
    def is_success(self) -> bool:
        """True when every host is in its declared state (or would be, for a dry run)."""
        bad = {HostOutcome.FAILED, HostOutcome.UNKNOWN, HostOutcome.SKIPPED}
        return not any(hive.status in bad for hive in self.hives)


def summarize(hives: Iterable[HostReport], duration_s: float) -> SyncReport:
    """Count what happened."""
    rows = tuple(hives)

    def count(*outcomes: HostOutcome) -> int:
        return sum(row.status in outcomes for row in rows)

    good = [row for row in rows if row.status not in {HostOutcome.FAILED, HostOutcome.PLANNED}]
    return SyncReport(
        hives_installed=count(HostOutcome.INSTALLED, HostOutcome.UPGRADED, HostOutcome.ROLLED_BACK),
        hives_already_installed=count(HostOutcome.ALREADY),
        hives_removed=count(HostOutcome.REMOVED),
        hives_failed=count(HostOutcome.FAILED, HostOutcome.UNKNOWN, HostOutcome.SKIPPED),
        workers_installed=sum(len(row.workers) for row in good),
        workers_removed=sum(len(row.workers_removed) for row in good),
        duration_s=duration_s,
        sequential_s=sum(row.seconds for row in rows),
        retries=sum(row.retries for row in rows),
        hives=rows,
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


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """One difference."""

    hive: str
    issue: Issue
    details: str


class StatusReport(msgspec.Struct, frozen=True, kw_only=True):
    """`status`: ok, drift, or unknown when a host could not be read and no drift is known."""

    status: str
    drift: tuple[Drift, ...]
    hives: int
