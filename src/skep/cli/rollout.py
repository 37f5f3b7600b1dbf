"""`skep sync`, `package-status`, `validate`, `ssh-doctor`: hosts brought to what skep.toml declares."""

import asyncio
import os
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from skep.cli.console import err, out, print_json, run
from skep.errors.rollout import UnknownHive
from skep.rollout import known
from skep.rollout.artifact import resolve
from skep.rollout.config import RolloutConfig, load
from skep.rollout.doctor import HostDiagnosis, diagnose
from skep.rollout.plan import Options
from skep.rollout.recipes import config_key
from skep.rollout.report import HostOutcome, StatusReport, SyncReport
from skep.rollout.ssh import SshConnector
from skep.rollout.status import status
from skep.rollout.sync import OnHost, Settings, Sync, token_of
from skep.spec.folders import folders
from skep.spec.host import HiveHost, select

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The declaration.")]
HiveOption = Annotated[
    list[str] | None, typer.Option("--hive", help="Only this alias or tag:NAME; may be repeated.")
]
JobsOption = Annotated[int, typer.Option("--jobs", "-j", min=1, max=256, help="Hosts at once.")]
JsonOption = Annotated[bool, typer.Option("--json", help="The report as JSON on stdout.")]
KnownHostsOption = Annotated[Path | None, typer.Option(help="Default: ~/.ssh/known_hosts.")]
AcceptNewOption = Annotated[
    bool, typer.Option("--accept-new", help="Record keys of hosts never seen; a changed key is refused.")
]
DEFAULT_CONFIG = Path("skep.toml")
COLOURS = {
    "failed": "red",
    "unknown": "red",
    "skipped": "yellow",
    "already_installed": "dim",
    "planned": "cyan",
}


def sync(
    config: ConfigOption = DEFAULT_CONFIG,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Install again what is there already.")] = False,
    remove_extra: Annotated[
        bool,
        typer.Option("--remove-extra", help="Remove what skep installed and the file no longer declares."),
    ] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Switch back to the version before.")] = False,
    hive: HiveOption = None,
    jobs: JobsOption = 16,
    max_unavailable: Annotated[int, typer.Option(min=1, help="Serving hosts switched at once.")] = 1,
    accept_new: AcceptNewOption = False,
    known_hosts: KnownHostsOption = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Bring hosts to the state that skep.toml declares, over SSH, in parallel.

    [bold]skep sync --dry-run[/bold] shows the steps, [bold]skep sync[/bold] does them; a second run does nothing.
    [bold]skep sync --hive tag:rack-1[/bold] takes some of the hosts. Exit 0: every host is as declared; 1: some are not.
    """
    declared = load(config)
    hosts = _chosen(declared, hive)
    record = folders(os.environ).state / "rollout.json"
    before = known.read(record)
    removed = _undeclared(declared, before) if remove_extra and not hive else []
    settings = Settings(
        base=declared.base,
        cache=folders(os.environ).cache / "rollout",
        options=Options(force=force, remove_extra=remove_extra, rollback=rollback),
        dry_run=dry_run,
        jobs=jobs,
        max_unavailable=max_unavailable,
    )
    with _progress([host.alias for host in [*hosts, *removed]], quiet=quiet or as_json) as tell:
        report = run(
            lambda: Sync(_connector(known_hosts, accept_new), settings, on_host=tell).run(
                hosts, removed=removed
            )
        )
    if not dry_run:
        known.write(record, _remembered(before, hosts, report))
    if as_json:
        print_json(report)
    else:
        _show_report(report)
    if not report.is_success:
        raise typer.Exit(1)


def package_status(
    config: ConfigOption = DEFAULT_CONFIG,
    hive: HiveOption = None,
    jobs: JobsOption = 16,
    known_hosts: KnownHostsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell how hosts differ from what skep.toml declares (drift). Exit 0: ok; 1: drift or unknown.

    [bold]skep package-status --json[/bold] is for scripts; a host that cannot be read is unknown, never missing.
    """
    declared = load(config)
    hosts = _chosen(declared, hive)
    extra = [] if hive else _undeclared(declared, known.read(folders(os.environ).state / "rollout.json"))

    async def main() -> StatusReport:
        cache = folders(os.environ).cache / "rollout"
        installs = {msgspec.json.encode(host.install): host.install for host in hosts}
        found = await asyncio.gather(
            *(resolve(one, base=declared.base, cache=cache) for one in installs.values())
        )
        by_install = dict(zip(installs, found, strict=True))
        artifacts = {host.alias: by_install[msgspec.json.encode(host.install)] for host in hosts}
        keys = {host.alias: config_key(host, token_of(host, declared.base).digest) for host in hosts}
        return await status(_connector(known_hosts, False), hosts, artifacts, keys, extra=extra, jobs=jobs)

    report = run(main)
    if as_json:
        print_json(report)
    else:
        table = Table("hive", "issue", "details")
        for drift in report.drift:
            table.add_row(drift.hive, str(drift.issue), Text(drift.details))
        if report.drift:
            out().print(table)
        out().print(f"{report.status}: {report.hives} hive(s), {len(report.drift)} difference(s)")
    if report.status != "ok":
        raise typer.Exit(1)


def validate(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Check skep.toml without touching a host; an error names its line. Exit 2: it is wrong.

    [bold]skep validate -c hosts.toml[/bold]
    """
    declared = load(config)
    if as_json:
        print_json(declared.hosts)
        return
    table = Table("hive", "host", "port", "workers", "tags")
    for host in declared.hosts:
        workers = ", ".join(f"{worker.type} {worker.version}" for worker in host.workers)
        table.add_row(host.alias, host.hostname, str(host.hive_port), workers, " ".join(host.tags))
    out().print(table)
    out().print(f"{config} is valid: {len(declared.hosts)} hive(s)")


def ssh_doctor(
    config: ConfigOption = DEFAULT_CONFIG,
    hive: HiveOption = None,
    jobs: JobsOption = 16,
    accept_new: AcceptNewOption = False,
    known_hosts: KnownHostsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask each host, question by question, whether skep could be brought there. Exit 1: some could not.

    [bold]skep ssh-doctor --hive gpu-1[/bold]
    """
    hosts = _chosen(load(config), hive)
    found: list[HostDiagnosis] = run(lambda: _diagnose(_connector(known_hosts, accept_new), hosts, jobs))
    if as_json:
        print_json(found)
    else:
        table = Table("hive", "check", "", "details")
        marks = {"ok": "[green]ok[/green]", "warn": "[yellow]warn[/yellow]", "fail": "[red]fail[/red]"}
        for diagnosis in found:
            for check in diagnosis.checks:
                table.add_row(diagnosis.alias, check.name, marks[check.verdict], Text(check.details))
            table.add_section()
        out().print(table)
    if not all(diagnosis.is_healthy for diagnosis in found):
        raise typer.Exit(1)


def _diagnose(
    connector: SshConnector, hosts: list[HiveHost], jobs: int
) -> Coroutine[Any, Any, list[HostDiagnosis]]:
    return diagnose(connector, hosts, jobs=jobs)


def _connector(known_hosts: Path | None, accept_new: bool) -> SshConnector:
    return SshConnector(
        known_hosts=known_hosts, accept_new=accept_new, config=Path.home() / ".ssh" / "config"
    )


def _chosen(declared: RolloutConfig, names: list[str] | None) -> list[HiveHost]:
    hosts, unknown = select(declared.hosts, names or [])
    if unknown:
        there = ", ".join(host.alias for host in declared.hosts)
        raise UnknownHive(f"--hive {unknown[0]!r} names nothing; declared are: {there}", names=unknown)
    return hosts


def _undeclared(declared: RolloutConfig, before: list[HiveHost]) -> list[HiveHost]:
    aliases = {host.alias for host in declared.hosts}
    return [host for host in before if host.alias not in aliases]


def _remembered(before: list[HiveHost], hosts: list[HiveHost], report: SyncReport) -> list[HiveHost]:
    gone = {row.alias for row in report.hives if row.status is HostOutcome.REMOVED}
    kept = {host.alias: host for host in [*before, *hosts] if host.alias not in gone}
    return list(kept.values())


@contextmanager
def _progress(aliases: list[str], *, quiet: bool) -> Generator[OnHost]:
    """Show what each host is doing: a live table on a terminal, a line a step elsewhere."""
    console = err()
    if quiet:
        yield lambda *_: None
        return
    if not console.is_terminal:
        yield lambda alias, step, what: console.print(f"{alias}: {step} {what}", markup=False)
        return
    now = dict.fromkeys(aliases, ("", "waiting"))

    def table() -> Table:
        shown = Table.grid(padding=(0, 2))
        for alias, (step, what) in now.items():
            shown.add_row(Text(alias, style="bold"), step, Text(what, style="dim"))
        return shown

    with Live(table(), console=console, transient=True, refresh_per_second=8) as live:

        def tell(alias: str, step: str, what: str) -> None:
            now[alias] = (step, what)
            live.update(table())

        yield tell


def _show_report(report: SyncReport) -> None:
    console = out()
    table = Table("hive", "", "version", "steps", "seconds")
    for row in report.hives:
        steps = ", ".join(step.name for step in row.steps)
        status_text = Text(str(row.status).replace("_", " "), style=COLOURS.get(row.status, "green"))
        table.add_row(row.alias, status_text, row.key, Text(steps), f"{row.seconds:.2f}")
    console.print(table)
    for row in report.hives:
        if row.error:
            console.print(f"{row.alias}: {row.error}", style="red", markup=False)
    console.print(
        f"{report.hives_installed} installed, {report.hives_already_installed} as declared, {report.hives_removed} removed, "
        f"{report.hives_failed} failed in {report.duration_s:.1f} s (one after the other: {report.sequential_s:.1f} s)"
    )
