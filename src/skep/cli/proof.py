"""`skep proof`: look at bundles, hold them against their attestation, compare them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from skep.cli import console

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Look at proof bundles. Example: [bold]skep proof show latest[/bold]",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

Out = Annotated[Path, typer.Option(help="Where bundles are.")]
Name = Annotated[str, typer.Argument(help="A path, a run id, or latest.")]
OUT = Path(".proof_bundle")


@app.command("list")
def list_(
    out: Out = OUT, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """List the bundles, newest first.

    Example: [bold]skep proof list[/bold]
    """
    import msgspec
    from rich.table import Table

    from skep.proof.reading import list_bundles

    found = list_bundles(out)
    if as_json:
        print(msgspec.json.encode([view.metadata for view in found]).decode())
        return
    if not found:
        console.err().print(f"no bundles in {out}: `skep prove` makes one", markup=False)
    table = Table(
        "run", "kind", "outcome", "passed", "failed", "skipped", "seed", box=None, header_style="bold"
    )
    for view in found:
        counts = view.metadata.counts
        table.add_row(
            view.metadata.run_id,
            view.metadata.kind,
            view.outcome,
            *map(str, (counts.passed, counts.failed, counts.skipped)),
            str(view.seeds.get("run", "")),
        )
    if found:
        console.out().print(table)


@app.command()
def show(
    name: Name = "latest",
    out: Out = OUT,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what a run did: every scenario, and every failure with its log.

    Example: [bold]skep proof show latest[/bold]
    """
    import msgspec

    from skep.proof.reading import read_bundle
    from skep.testkit.prove import find_bundle

    view = read_bundle(find_bundle(name, out))
    if as_json:
        print(msgspec.json.encode({"metadata": view.metadata, "scenarios": view.scenarios}).decode())
        return
    printer = console.out()
    printer.print(f"{view.metadata.kind} {view.metadata.run_id}: {view.outcome}", markup=False)
    for record in view.scenarios:
        mark = {"passed": "✓", "failed": "✕", "skipped": "-"}.get(record.status, "?")
        printer.print(f"  {mark} {record.feature}: {record.name} ({record.duration_ms:.0f} ms)", markup=False)
        if record.reason:
            printer.print(f"      {record.reason}", markup=False)
        if record.error:
            _show_failure(printer, view, record)
    for running in view.unfinished:
        printer.print(f"  … was running: {running}", markup=False)
    printer.print(f"page: {view.folder / 'index.html'}", markup=False)


@app.command()
def verify(name: Name = "latest", out: Out = OUT) -> None:
    """Hold a bundle against its attestation: intact, partial, or altered and where.

    Example: [bold]skep proof verify latest[/bold]. Exit code 0 only for an intact one.
    """
    from skep.proof.verify import Verdict, verify_bundle
    from skep.testkit.prove import find_bundle

    folder = find_bundle(name, out)
    result = verify_bundle(folder)
    console.out().print(f"{folder}: {result.verdict}", markup=False)
    for line in (*result.problems, *result.notes):
        console.out().print(f"  {line}", markup=False)
    raise typer.Exit(0 if result.verdict is Verdict.INTACT else 1)


@app.command()
def diff(before: Name, after: Name, out: Out = OUT) -> None:
    """Tell what changed between two runs; exit code 1 when something broke or went.

    Example: [bold]skep proof diff 20260101-120000-0a1b2c3d latest[/bold]
    """
    from skep.proof.diff import diff_bundles
    from skep.proof.reading import read_bundle
    from skep.testkit.prove import find_bundle

    changes = diff_bundles(*(read_bundle(find_bundle(name, out)) for name in (before, after)))
    for change in changes:
        arrow = " → ".join(filter(None, (change.before, change.after)))
        console.out().print(f"{change.what}: {change.name} ({change.scenario}) {arrow}", markup=False)
    if not changes:
        console.out().print("no differences")
    raise typer.Exit(1 if any(change.what in {"broke", "removed"} for change in changes) else 0)


def _show_failure(printer: Any, view: Any, record: Any) -> None:
    printer.print(f"      {record.error.type}: {record.error.message}", markup=False)
    for step in view.steps_of(record.id):
        if step.status != "passed":
            printer.print(f"      {step.status}: {step.keyword} {step.text}  [{step.location}]", markup=False)
    for name in record.logs:
        tail = "\n".join(view.log_tail(name).splitlines()[-10:])
        printer.print(f"      --- {name}\n{tail}", markup=False)
