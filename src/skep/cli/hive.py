"""`skep hive`: run the node daemon, or install it as a service."""

import asyncio
import os
import pwd
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from skep.cli import console
from skep.cli.settings import load_config
from skep.errors import SkepError
from skep.spec.config import Layer
from skep.spec.folders import folders

if TYPE_CHECKING:
    from skep.hive.unit import Unit

hive = typer.Typer(
    invoke_without_command=True,
    no_args_is_help=False,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SystemOption = Annotated[
    bool, typer.Option("--system/--user", help="For the machine (root), or for your user.")
]


@hive.callback()
def run_hive(
    ctx: typer.Context,
    config: Annotated[Path | None, typer.Option(help="A skep.toml instead of ./skep.toml.")] = None,
    bind: Annotated[str | None, typer.Option(help="Where the API listens: HOST:PORT.")] = None,
    queen: Annotated[str | None, typer.Option(help="The queen's admin URL to register with.")] = None,
    token_file: Annotated[str | None, typer.Option(help="File with the bearer token (mode 0600).")] = None,
    runtime_dir: Annotated[str | None, typer.Option(help="Where handoff files and locks go.")] = None,
    node_id: Annotated[str | None, typer.Option(help="This node's id; the host's name by default.")] = None,
    report_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    exit_with_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the node daemon: it keeps pools of model workers alive on this machine's devices.

    Example: [bold]skep hive --queen http://127.0.0.1:8081[/bold], pools from skep.toml or by [bold]skep pool[/bold].
    """
    if ctx.invoked_subcommand is not None:
        return
    from skep.hive.settings import from_config
    from skep.process.socket import bind_listener
    from skep.telemetry.logs import configure
    from skep.web.server import run

    flags = {
        "bind": bind, "queen": queen, "token_file": token_file, "runtime_dir": runtime_dir, "node_id": node_id
    }  # fmt: skip
    given = {name: value for name, value in flags.items() if value is not None}
    resolved = load_config(config, flags=Layer("flags", {"hive_daemon": given} if given else {}))
    settings = from_config(resolved.config, folders(os.environ), environment=os.environ)
    configure("hive", node_id=settings.node_id, instance=settings.instance)
    with bind_listener(settings.host, settings.port) as listener:
        run(_serve(settings, listener, report_fd, exit_with_fd))


async def _serve(settings: Any, listener: Any, report_fd: int | None, exit_with_fd: int | None) -> None:
    from skep.hive.daemon import running

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    if exit_with_fd is not None:
        loop.add_reader(exit_with_fd, stop.set)
    async with running(settings, listener) as daemon:
        console.err().print(f"hive {settings.node_id} answers at {daemon.url}", markup=False)
        if report_fd is not None:
            with os.fdopen(report_fd, "wb") as pipe:
                pipe.write(msgspec.json.encode({"event": "ready", "url": daemon.url}) + b"\n")
        await stop.wait()


@hive.command("install")
def install(
    system: SystemOption = False,
    config: Annotated[Path | None, typer.Option(help="The skep.toml that the service uses.")] = None,
    now: Annotated[
        bool, typer.Option("--now", help="Start it at once, and with the machine: run the commands too.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the unit and the commands only.")] = False,
) -> None:
    """Install the hive as a systemd service that starts with the machine.

    Example: [bold]skep hive install --system --now --config /etc/skep/skep.toml[/bold]
    """
    from skep.hive import service
    from skep.hive.unit import is_lingering

    unit = _unit(system=system, config=config)
    if config is not None:
        load_config(config)
    out, note = console.out(), console.err()
    user = pwd.getpwuid(os.getuid()).pw_name
    commands = [one for one in unit.commands if one[0] != "loginctl" or not is_lingering(user)]
    if dry_run:
        out.print(f"# {unit.path}\n{unit.text}", markup=False)
    else:
        if now and not service.is_systemd_running():
            raise SkepError(_without_systemd(config))
        service.install(unit)
        note.print(f"wrote {unit.path}", markup=False)
    if now and not dry_run:
        service.run(commands)
        note.print(f"{unit.path.name} runs, and starts with the machine", markup=False)
        return
    if not service.is_systemd_running():
        note.print(_without_systemd(config), markup=False)
    note.print("now run, or give --now:", style="dim")
    for command in commands:
        out.print(" ".join(command), markup=False)


@hive.command("uninstall")
def uninstall(system: SystemOption = False) -> None:
    """End the service and remove its unit; the hive ends its workers, and what it stored stays.

    Example: [bold]skep hive uninstall --system[/bold]
    """
    from skep.hive import service

    unit = _unit(system=system, config=None)
    note = console.err()
    if not service.uninstall(unit, is_system=system):
        other = "without --system" if system else "with --system"
        note.print(f"there is no {unit.path}; a service of the other kind is removed {other}", markup=False)
        return
    note.print(f"removed {unit.path}; downloads, logs and declared pools stay", markup=False)


def _unit(*, system: bool, config: Path | None) -> "Unit":
    from skep.hive.unit import make_unit

    return make_unit(
        program=Path(sys.executable).with_name("skep"),
        config=config,
        is_system=system,
        user_config=Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"),
        user=pwd.getpwuid(os.getuid()).pw_name,
        home=os.environ.get("SKEP_HOME", ""),
    )


def _without_systemd(config: Path | None) -> str:
    command = f"skep hive{f' --config {config}' if config else ''}"
    return (
        f"systemd does not run this machine: start `{command}` by what does (an init script, a container's "
        "command, tmux), restart it when it ends, and send SIGTERM to end it"
    )
