"""`skep arena`: try a policy on a simulated cluster first."""

import typer

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Try a policy on a simulated cluster first: thousands of steps a second, no cluster needed.\n\n"
    "Start here: [bold]skep arena trace generate demo.msgpack[/bold], then "
    "[bold]skep arena episode demo.msgpack --policy heuristic[/bold].",
)
