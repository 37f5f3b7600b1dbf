"""`skep check`: a conformance check of anybody's OpenAI-compatible server."""

from typing import Annotated

import typer

from skep.cli import console

EXIT_BROKEN = 1


def check(
    url: Annotated[
        str, typer.Argument(help="The server, with or without /v1. May be left out beside --command.")
    ] = "",
    model: Annotated[str, typer.Option(help="The model to ask; the first that the server lists.")] = "",
    api_key: Annotated[
        str,
        typer.Option("--api-key", envvar=["SKEP_API_KEY", "OPENAI_API_KEY"], help="Sent as a bearer token."),
    ] = "",
    only: Annotated[
        list[str] | None, typer.Option(help="Only this area or clause (stream, stream.one-done, *.health*).")
    ] = None,
    skip: Annotated[list[str] | None, typer.Option(help="Leave this area or clause out.")] = None,
    chaos: Annotated[
        bool, typer.Option("--chaos", help="Also flood the server and hold many connections.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="A broken 'should' fails the run as well.")
    ] = False,
    budget_s: Annotated[float, typer.Option(min=1, help="Time for all of it.")] = 600.0,
    patience_s: Annotated[float, typer.Option(min=0.1, help="Time for one exchange.")] = 30.0,
    slots_max: Annotated[
        int, typer.Option(min=1, max=256, help="How many streams may be opened to fill it.")
    ] = 16,
    command: Annotated[
        str, typer.Option(help="Start the server by this, {port} filled in; adds the area lifecycle.")
    ] = "",
    out: Annotated[str, typer.Option(help="Where the bundle goes; empty for none.")] = ".proof_bundle",
    run_id: Annotated[str, typer.Option(help="Name the bundle.")] = "",
    junit: Annotated[str, typer.Option(help="Also write JUnit XML to this file.")] = "",
    list_clauses: Annotated[bool, typer.Option("--list", help="List the clauses; ask nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; failures only.")] = False,
) -> None:
    """Check whether a server that claims OpenAI's API keeps it: streams, cancellation, errors, limits.

    Example: [bold]skep check http://127.0.0.1:8080[/bold], or [bold]skep check --command 'llama-server -m m.gguf --port {port}'[/bold]

    Exit code 0: every 'must' holds where it can be seen; 1: one is broken; 2: bad usage.
    """
    from pathlib import Path

    from skep.errors import InvalidConfig
    from skep.testkit.check.probe import Target
    from skep.testkit.check.report import as_table, clause_table, listed, progress_line, write_junit
    from skep.testkit.check.run import CheckOptions, normal_url
    from skep.testkit.check.run import check as run
    from skep.testkit.check.verdict import Finding

    if list_clauses:
        found = listed(tuple(only or ()), tuple(skip or ()))
        console.print_json(found) if as_json else console.out().print(clause_table(found))
        return
    if not url and not command:
        raise InvalidConfig("give the server's URL, for example: skep check http://127.0.0.1:8080")
    options = CheckOptions(
        target=Target(
            url=normal_url(url), model=model, api_key=api_key, patience_s=patience_s, slots_max=slots_max
        ),
        only=tuple(only or ()),
        skip=tuple(skip or ()),
        budget_s=budget_s,
        is_chaos=chaos,
        is_strict=strict,
        command=command,
        out=out,
        run_id=run_id,
    )
    told = console.err()

    def tell(finding: Finding) -> None:
        if not quiet and not as_json:
            told.print(progress_line(finding), markup=False)

    report = console.run(lambda: run(options, on_finding=tell))
    if junit:
        write_junit(report, Path(junit))
    if as_json:
        console.print_json(report)
    else:
        console.out().print(as_table(report, only_failures=quiet))
        if report.bundle:
            told.print(f"the evidence: {report.bundle}/index.html", markup=False)
    raise typer.Exit(EXIT_BROKEN if report.failures(is_strict=strict) else 0)
