"""`skep steps`: the vocabulary of a suite."""

from dataclasses import asdict
from typing import Annotated

import typer

from skep.cli import console


def steps(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Feature suites; tests/features by default.")
    ] = None,
    search: Annotated[str, typer.Option("--search", "-s", help="Only steps with these words.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the steps that features can use, how often each is used, and an example.

    Example: [bold]skep steps --search pool[/bold]
    """
    import msgspec
    from rich.table import Table

    from skep.testkit.prove import ProveOptions, resolved
    from skep.testkit.vocabulary import suite_steps

    found = suite_steps(resolved(ProveOptions(paths=tuple(paths or ()))).paths)
    words = search.lower().split()
    found = [
        each for each in found if all(word in f"{each.keyword} {each.pattern}".lower() for word in words)
    ]
    if as_json:
        print(msgspec.json.encode([asdict(each) for each in found]).decode())
        return
    table = Table("step", "uses", "example", "defined at", box=None, header_style="bold")
    for each in found:
        table.add_row(
            f"[bold]{each.keyword}[/bold] {_plain(each.pattern)}",
            str(each.uses),
            _plain(each.example),
            each.location,
        )
    console.out().print(table)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
