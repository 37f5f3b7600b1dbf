"""`skep`: the table of commands, loaded one at a time so that each starts fast.

A room's commands stand in the file of that room's name beside this one.
"""

import importlib
import os
import sys
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from skep import __version__
from skep.cli.importing import importing
from skep.errors import InvalidConfig, SkepError

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


class Entry(NamedTuple):
    """Where a command lives (`module:attribute`), its heading and its line in `skep --help`."""

    target: str
    panel: str
    help: str


RUN, LOOK, PROVE, BRING = "Run", "Look and act", "Prove", "Bring hosts to a declared state"

COMMANDS: dict[str, Entry] = {
    "up": Entry("skep.cli.up:up", RUN, "Serve models on this machine, in one command."),
    "worker": Entry("skep.cli.worker:app", RUN, "Serve one model over HTTP and server-sent events."),
    "hive": Entry("skep.cli.hive:hive", RUN, "Run the node daemon: pools of workers on this machine."),
    "queen": Entry("skep.cli.queen:queen", RUN, "Run the orchestrator: registry, gateway, dashboard."),
    "chat": Entry("skep.cli.chat:chat", RUN, "Talk to a model in the terminal."),
    "doctor": Entry(
        "skep.cli.doctor:doctor", LOOK, "Tell what was found on this machine, and whether it works."
    ),
    "top": Entry("skep.cli.top:top", LOOK, "Watch the fleet in the terminal."),
    "nodes": Entry("skep.cli.nodes:app", LOOK, "List the machines of a fleet; cordon one."),
    "key": Entry("skep.cli.key:app", LOOK, "API keys of the gateway."),
    "store": Entry("skep.cli.store:app", LOOK, "Copy what a queen has stored."),
    "pool": Entry("skep.cli.pool:pool", LOOK, "Look at a hive's pools: preload, drain, reload, logs, why."),
    "devices": Entry("skep.cli.devices:devices", LOOK, "List this machine's devices and their memory."),
    "config": Entry("skep.cli.config:config", LOOK, "Show the configuration and where each value came from."),
    "engine": Entry("skep.cli.engine:engine", LOOK, "Bring engines to this machine, and list them."),
    "model": Entry("skep.cli.model_facts:model", LOOK, "Bring models here; say what one holds and needs."),
    "sync": Entry("skep.cli.rollout:sync", BRING, "Bring hosts to what skep.toml declares."),
    "package-status": Entry("skep.cli.rollout:package_status", BRING, "Tell how hosts differ from it."),
    "validate": Entry("skep.cli.rollout:validate", BRING, "Check skep.toml without touching a host."),
    "ssh-doctor": Entry(
        "skep.cli.rollout:ssh_doctor", BRING, "Ask each host whether skep could be brought there."
    ),
    "prove": Entry(
        "skep.cli.prove:prove", PROVE, "Run features against real processes; leave a proof bundle."
    ),
    "check": Entry(
        "skep.cli.check:check", PROVE, "Check anybody's OpenAI-compatible server, clause by clause."
    ),
    "steps": Entry("skep.cli.steps:steps", PROVE, "List the steps that features can use."),
    "proof": Entry("skep.cli.proof:app", PROVE, "Look at proof bundles, verify and compare them."),
    "testkit": Entry(
        "skep.cli.testkit:app", PROVE, "A proxy that breaks connections, for servers that are not ours."
    ),
    "arena": Entry("skep.cli.arena:app", PROVE, "Try a policy on a simulated cluster first."),
}


def load(entry: Entry) -> Any:
    """Import the command that an entry names: a Typer app (a group) or a function (a single command)."""
    module, _, attribute = entry.target.partition(":")
    with importing():
        found = getattr(importlib.import_module(module), attribute)
    if isinstance(found, typer.Typer):
        return typer.main.get_command(found)
    single = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    single.command(context_settings={"help_option_names": ["-h", "--help"]})(found)
    return typer.main.get_command(single)


class LazyGroup(TyperGroup):
    """Lists commands from the table, and imports a command's module only when it is named."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the framework's signature
        """Return the commands in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the framework's signature
        """Return a stand-in that carries the help line."""
        entry = COMMANDS.get(cmd_name)
        return entry and TyperCommand(cmd_name, help=entry.help, rich_help_panel=entry.panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the real command, imported now."""
        if args and args[0] in COMMANDS:
            command = load(COMMANDS[args[0]])
            command.name = args[0]
            return args[0], command, args[1:]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"skep {__version__}")
        raise typer.Exit


@app.callback()
def root(  # the callback of bare `skep`
    version: bool = typer.Option(  # noqa: ARG001 - its callback acts
        False, "--version", callback=_show_version, is_eager=True, help="Print the version."
    ),
    debug: bool = typer.Option(False, "--debug", envvar="SKEP_DEBUG", help="Show tracebacks."),
    no_color: bool = typer.Option(False, "--no-color", help="Plain output (NO_COLOR does the same)."),
) -> None:
    """skep runs LLMs on the machines you have, and proves that they work.

    Start here: [bold]skep up[/bold] serves a model on this machine, [bold]skep chat[/bold] talks to it.
    """
    if debug:
        os.environ["SKEP_DEBUG"] = "1"
    if no_color:
        os.environ["NO_COLOR"] = "1"


def _json_line(error: SkepError) -> str:
    import msgspec

    from skep.wire.errors import error_object

    return msgspec.json.encode({"error": error_object(error)}, enc_hook=str).decode()


def main() -> None:
    """Run the command line; a deliberate failure is one line and a stated exit code.

    With `--json` among the arguments the line is the same error object that the servers answer with.
    """
    try:
        app()
    except SkepError as error:
        if os.environ.get("SKEP_DEBUG"):
            raise
        print(_json_line(error) if "--json" in sys.argv else f"skep: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE if isinstance(error, InvalidConfig) else EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
