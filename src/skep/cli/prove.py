"""`skep prove`: features against a fleet."""

from typing import Annotated

import typer


def prove(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Feature suites; tests/features by default.")
    ] = None,
    feature: Annotated[
        str, typer.Option("--feature", "-f", help="Only this feature file. [SKEP_FEATURE_PATH]")
    ] = "",
    tags: Annotated[
        str, typer.Option(help="Only scenarios whose tags fit: '@OC-POOL-3001 and not @slow'.")
    ] = "",
    run_id: Annotated[str, typer.Option(help="Name the bundle. [SKEP_RUN_ID]")] = "",
    out: Annotated[str, typer.Option(help="Where bundles go.")] = ".proof_bundle",
    url: Annotated[str, typer.Option(help="Use the hive at this URL instead of starting one.")] = "",
    level: Annotated[
        str,
        typer.Option(
            help="scripted, loopback, netns, container, vm or ssh; several with commas are compared."
        ),
    ] = "",
    backend: Annotated[str, typer.Option(help="The workers' backend: fake or llama.")] = "",
    devices: Annotated[str, typer.Option(help="The workers' devices: fake or real.")] = "",
    processes: Annotated[str, typer.Option("-n", help="Run in this many processes (or auto).")] = "",
    seed: Annotated[int | None, typer.Option(help="The run's seed; drawn and recorded by default.")] = None,
    replay: Annotated[str, typer.Option(help="Run again what a bundle ran, with its seeds.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the features and steps; run nothing.")
    ] = False,
    nocapture: Annotated[
        bool, typer.Option("--nocapture", help="Show each step, and all output, as it comes.")
    ] = False,
) -> None:
    """Run feature files against real processes, and leave a proof bundle.

    Example: [bold]skep prove --tags @OC-POOL-3001[/bold], then [bold]skep proof show latest[/bold].
    """
    from skep.testkit.prove import ProveOptions
    from skep.testkit.prove import prove as run

    options = ProveOptions(
        paths=tuple(paths or ()),
        feature=feature,
        tags=tags,
        run_id=run_id,
        out=out,
        url=url,
        level=level,
        backend=backend,
        devices=devices,
        processes=processes,
        seed=seed,
        replay=replay,
        is_dry=dry_run,
        is_live=nocapture,
    )
    raise typer.Exit(run(options))
