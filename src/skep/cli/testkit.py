"""`skep testkit`: parts of the test kit that run by themselves."""

import asyncio
from typing import Annotated

import typer

from skep.cli import console

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.callback()
def testkit() -> None:
    """Parts of the test kit that run by themselves."""


@app.command()
def proxy(
    to: Annotated[str, typer.Argument(help="The server: HOST:PORT.")],
    fault: Annotated[
        list[str] | None, typer.Option("--fault", "-f", help="cut-at=100, delay-ms=5..50, refuse, …")
    ] = None,
    listen: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.")] = 0,
    seed: Annotated[int, typer.Option(help="Ranges are drawn from it: the same seed, the same faults.")] = 0,
    skip: Annotated[int, typer.Option(help="Let so many connections through unharmed first.")] = 0,
) -> None:
    """Break the connections to a server: cut, reset, stall, delay, slow.

    Example: [bold]skep testkit proxy 127.0.0.1:8080 --fault cut-at=200..2000 --seed 7[/bold]
    """
    from skep.errors import InvalidConfig
    from skep.testkit.faults.proxy import FaultProxy
    from skep.testkit.faults.stream import parse_fault

    host, _, port = to.rpartition(":")
    if not host or not port.isdecimal():
        raise InvalidConfig(f"{to!r} is not HOST:PORT, for example 127.0.0.1:8080")
    found = FaultProxy(
        host, int(port), [parse_fault(each) for each in fault or ()], seed=seed, listen_port=listen, skip=skip
    )
    asyncio.run(_serve(found))


async def _serve(found: object) -> None:
    from skep.testkit.faults.proxy import FaultProxy

    assert isinstance(found, FaultProxy)
    async with found:
        console.out().print(found.url, markup=False)
        try:
            await asyncio.Event().wait()
        finally:
            for number, drawn in enumerate(found.drawn):
                console.err().print(f"connection {number}: {', '.join(drawn) or 'unharmed'}", markup=False)
