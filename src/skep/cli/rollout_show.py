"""What the rollout commands show: tables on a terminal, lines elsewhere, which scripts can read and which need no drawing."""

import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from skep.cli.console import err, out
from skep.rollout.doctor import HostDiagnosis
from skep.rollout.report import HostOutcome, HostReport, StatusReport, SyncReport
from skep.rollout.sync import OnHost
from skep.spec.host import HiveHost

COLOURS = {
    "failed": "red",
    "unknown": "red",
    "skipped": "yellow",
    "already_installed": "dim",
    "planned": "cyan",
}
MARKS = {"ok": "green", "warn": "yellow", "fail": "red"}


def _show(columns: Sequence[str], rows: Sequence[Sequence[str]], *, colours: Sequence[str]) -> None:
    """Print rows: a table whose second column is coloured on a terminal, tabs between the cells elsewhere."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        return
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(
        *(Column(column, overflow="fold") for column in columns)
    )  # On a narrow terminal nothing is cut.
    for row, colour in zip(rows, colours, strict=True):
        table.add_row(row[0], Text(row[1], style=colour), *(Text(cell) for cell in row[2:]))
    out().print(table)


@contextmanager
def progress(aliases: list[str], *, quiet: bool) -> Generator[OnHost]:
    """Show what each host is doing: a live table on a terminal, a line a step elsewhere."""
    if quiet:
        yield lambda *_: None
        return
    if not sys.stderr.isatty():
        yield lambda alias, step, what: print(f"{alias}: {step} {what}", file=sys.stderr)
        return
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    now = dict.fromkeys(aliases, ("", "waiting"))

    def table() -> Table:
        shown = Table.grid(padding=(0, 2))
        for alias, (step, what) in now.items():
            shown.add_row(Text(alias, style="bold"), step, Text(what, style="dim"))
        return shown

    with Live(table(), console=err(), transient=True, refresh_per_second=8) as live:

        def tell(alias: str, step: str, what: str) -> None:
            now[alias] = (step, what)
            live.update(table())

        yield tell


def show_report(report: SyncReport) -> None:
    """Print a sync's report: a row a host, every error in full, the sums."""
    rows = [_row(host) for host in report.hives]
    _show(
        ("hive", "", "version", "steps", "seconds"),
        rows,
        colours=[COLOURS.get(host.status, "green") for host in report.hives],
    )
    for host in report.hives:
        if host.error:
            print(host.error if host.error.startswith(host.alias) else f"{host.alias}: {host.error}")
    print(_sums(report))
    if measured := _measured(report):
        print(measured)


def _sums(report: SyncReport) -> str:
    planned = sum(host.status is HostOutcome.PLANNED for host in report.hives)
    done = f"{planned} planned" if planned else f"{report.hives_installed} installed"
    return (
        f"{done}, {report.hives_already_installed} as declared, {report.hives_removed} removed, "
        f"{report.hives_failed} failed in {report.duration_s:.1f} s (one after the other: {report.sequential_s:.1f} s)"
    )


def _measured(report: SyncReport) -> str:
    """Return what the metrics say beyond the sums; nothing of a run that had nothing to do."""
    metrics = report.metrics
    spent = {
        "bring": metrics.bring_s,
        "send": metrics.send_s,
        "clone": metrics.clone_s,
        "build": metrics.build_s,
    }
    parts = [f"{name} {seconds:.1f} s" for name, seconds in spent.items() if seconds]
    parts += [f"{report.retries} retries, {metrics.recovered} host(s) recovered"] if report.retries else []
    parts += [f"{code}: {count}" for code, count in metrics.failure_modes.items()]
    return ", ".join(parts)


def _row(host: HostReport) -> tuple[str, ...]:
    steps = ", ".join(step.name for step in host.steps)
    return host.alias, str(host.status).replace("_", " "), host.key, steps, f"{host.seconds:.2f}"


def show_status(report: StatusReport) -> None:
    """Print how hosts differ from what is declared."""
    rows = [(drift.hive, str(drift.issue), drift.details) for drift in report.drift]
    if rows:
        _show(("hive", "issue", "details"), rows, colours=["yellow"] * len(rows))
    print(f"{report.status}: {report.hives} hive(s), {len(report.drift)} difference(s)")


def show_hosts(config: Path, hosts: Sequence[HiveHost]) -> None:
    """Print what a valid file declares."""
    rows = [
        (
            host.alias,
            host.hostname,
            str(host.hive_port),
            ", ".join(f"{worker.type} {worker.version}" for worker in host.workers),
            " ".join(host.tags),
        )
        for host in hosts
    ]
    _show(("hive", "host", "port", "workers", "tags"), rows, colours=["none"] * len(rows))
    print(f"{config} is valid: {len(hosts)} hive(s)")


def show_diagnoses(found: Sequence[HostDiagnosis]) -> None:
    """Print every check of every host."""
    checks = [(diagnosis.alias, check) for diagnosis in found for check in diagnosis.checks]
    rows = [(alias, check.verdict, check.name, check.details) for alias, check in checks]
    _show(("hive", "", "check", "details"), rows, colours=[MARKS.get(row[1], "dim") for row in rows])
