"""`skep sync`, `package-status`, `validate`, `ssh-doctor`: hosts brought to what skep.toml declares."""

import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from skep.cli.console import print_json, run
from skep.cli.importing import importing
from skep.cli.rollout_show import progress, show_diagnoses, show_hosts, show_report, show_status
from skep.errors.rollout import UnknownHive
from skep.rollout import known
from skep.rollout.config import RolloutConfig, load
from skep.rollout.dialing import Dialed
from skep.rollout.doctor import HostDiagnosis, diagnose
from skep.rollout.plan import Options
from skep.rollout.report import StatusReport
from skep.rollout.status import status, wanted
from skep.rollout.sync import Settings, Sync
from skep.rollout.transport import Connector
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
INTERRUPTED = "skep: interrupted. Every host has its old version or the new one, whole; `skep sync` takes the work up again"


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
    forget: Annotated[
        list[str] | None,
        typer.Option(
            "--forget", help="A host that is gone for good and no longer declared; may be repeated."
        ),
    ] = None,
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
    [bold]skep sync --hive tag:rack-1[/bold] takes some of the hosts.

    Exit 0: every host is as declared; 1: some are not; 2: the file or an option is wrong; 130: interrupted.
    """
    if rollback and (force or remove_extra):
        raise typer.BadParameter("goes neither with --force nor with --remove-extra", param_hint="--rollback")
    declared = load(config)
    hosts = _chosen(declared, hive)
    record = known.path_of(config, folders(os.environ).state)
    before = known.read(record)
    _check_forgotten(before, forget)
    extra = known.undeclared(_without(before, forget), declared.hosts)
    removed = extra if remove_extra and not hive else []
    settings = Settings(
        base=declared.base,
        cache=folders(os.environ).cache / "rollout",
        options=Options(force=force, remove_extra=remove_extra, rollback=rollback),
        dry_run=dry_run,
        jobs=jobs,
        max_unavailable=max_unavailable,
    )
    try:
        with (
            Dialed([*hosts, *removed][:jobs], _ssh_config()) as dialed,
            progress([host.alias for host in [*hosts, *removed]], quiet=quiet or as_json) as tell,
        ):
            connector = _connector(known_hosts, accept_new=accept_new, dialed=dialed)
            report = run(lambda: Sync(connector, settings, on_host=tell).run(hosts, removed=removed))
    except KeyboardInterrupt:
        if not dry_run:
            run(lambda: known.update(record, lambda now: known.begun(_without(now, forget), hosts)))
        print(INTERRUPTED, file=sys.stderr)
        raise
    if as_json:
        print_json(report)
    else:
        show_report(report)
    if not dry_run:
        run(lambda: known.update(record, lambda now: known.after(_without(now, forget), hosts, report)))
    if not report.is_success:
        raise typer.Exit(1)


def package_status(
    config: ConfigOption = DEFAULT_CONFIG,
    hive: HiveOption = None,
    jobs: JobsOption = 16,
    known_hosts: KnownHostsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell how hosts differ from what skep.toml declares (drift). Exit 0: ok; 1: drift or unknown; 2: the file is wrong.

    [bold]skep package-status --json[/bold] is for scripts; a host that cannot be read is unknown, never missing.
    """
    declared = load(config)
    hosts = _chosen(declared, hive)
    before = known.read(known.path_of(config, folders(os.environ).state))
    extra = [] if hive else known.undeclared(before, declared.hosts)

    async def main() -> StatusReport:
        wants = await wanted(hosts, base=declared.base, cache=folders(os.environ).cache / "rollout")
        return await status(connector, hosts, wants, extra=extra, jobs=jobs)

    with Dialed([*hosts, *extra][:jobs], _ssh_config()) as dialed:
        connector = _connector(known_hosts, accept_new=False, dialed=dialed)
        report = run(main)
    if as_json:
        print_json(report)
    else:
        show_status(report)
    if report.status != "ok":
        raise typer.Exit(1)


def validate(
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="What is declared, as JSON on stdout.")] = False,
) -> None:
    """Check skep.toml without touching a host; an error names its line. Exit 2: it is wrong.

    [bold]skep validate -c hosts.toml[/bold]
    """
    declared = load(config)
    if as_json:
        print_json(declared.hosts)
        return
    show_hosts(config, declared.hosts)


def ssh_doctor(
    config: ConfigOption = DEFAULT_CONFIG,
    hive: HiveOption = None,
    jobs: JobsOption = 16,
    accept_new: AcceptNewOption = False,
    known_hosts: KnownHostsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask each host, question by question, whether skep could be brought there. Exit 1: to some not; 2: the file is wrong.

    [bold]skep ssh-doctor --hive gpu-1[/bold]
    """
    hosts = _chosen(load(config), hive)
    found: list[HostDiagnosis] = run(
        lambda: _diagnose(_connector(known_hosts, accept_new=accept_new), hosts, jobs)
    )
    if as_json:
        print_json(found)
    else:
        show_diagnoses(found)
    if not all(diagnosis.is_healthy for diagnosis in found):
        raise typer.Exit(1)


def _diagnose(
    connector: Connector, hosts: list[HiveHost], jobs: int
) -> Coroutine[Any, Any, list[HostDiagnosis]]:
    return diagnose(connector, hosts, jobs=jobs)


def _ssh_config() -> Path:
    return Path.home() / ".ssh" / "config"


def _connector(known_hosts: Path | None, *, accept_new: bool, dialed: Dialed | None = None) -> Connector:
    with importing():  # The SSH library: while it is read, the hosts answer.
        from skep.rollout.ssh import SshConnector

    return SshConnector(known_hosts=known_hosts, accept_new=accept_new, config=_ssh_config(), dialed=dialed)


def _chosen(declared: RolloutConfig, names: list[str] | None) -> list[HiveHost]:
    hosts, unknown = select(declared.hosts, names or [])
    if unknown:
        there = ", ".join(host.alias for host in declared.hosts)
        raise UnknownHive(f"--hive {unknown[0]!r} names nothing; declared are: {there}", names=unknown)
    return hosts


def _check_forgotten(before: list[HiveHost], forgotten: list[str] | None) -> None:
    there = [host.alias for host in before]
    if unknown := [name for name in forgotten or [] if name not in there]:
        known_names = ", ".join(there) or "none"
        raise UnknownHive(
            f"--forget {unknown[0]!r} is not remembered; remembered are: {known_names}", names=unknown
        )


def _without(before: list[HiveHost], forgotten: list[str] | None) -> list[HiveHost]:
    return [host for host in before if host.alias not in (forgotten or [])]
