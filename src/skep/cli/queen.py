"""`skep queen`: run the orchestrator."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from skep.cli import console
from skep.errors import InvalidConfig

Url = Annotated[str, typer.Option(help="The queen's admin API.", envvar="SKEP_QUEEN_URL")]
TokenFile = Annotated[
    Path | None, typer.Option(help="File with the admin token.", envvar="SKEP_QUEEN_TOKEN_FILE")
]


def queen(
    bind: str = typer.Option(
        "127.0.0.1:8080", help="Where clients ask: HOST:PORT.", envvar="SKEP_QUEEN_BIND"
    ),
    admin_bind: str = typer.Option(
        "127.0.0.1:8081", help="Where hives register, and the dashboard.", envvar="SKEP_QUEEN_ADMIN_BIND"
    ),
    token_file: Path | None = typer.Option(
        None, help="File with the admin token; hives need it too.", envvar="SKEP_QUEEN_TOKEN_FILE"
    ),
    store: str = typer.Option(
        "",
        help="sqlite:PATH or etcd:http://a,http://b,http://c; a file of yours by default.",
        envvar="SKEP_QUEEN_STORE",
    ),
    advertise: str = typer.Option(
        "", help="Admin URL by which other queens reach this one.", envvar="SKEP_QUEEN_ADVERTISE"
    ),
    tls_cert: Path | None = typer.Option(None, help="Certificate chain (PEM).", envvar="SKEP_QUEEN_TLS_CERT"),
    tls_key: Path | None = typer.Option(None, help="Its private key (PEM).", envvar="SKEP_QUEEN_TLS_KEY"),
    load_wait_s: float = typer.Option(
        60.0,
        min=0,
        help="How long a request waits for a model that is loading.",
        envvar="SKEP_QUEEN_LOAD_WAIT_S",
    ),
    report_fd: int | None = typer.Option(None, hidden=True, help="Tell readiness on this descriptor."),
    exit_with_fd: int | None = typer.Option(None, hidden=True, help="End when this pipe closes."),
) -> None:
    """Run the orchestrator: nodes register with it, and its gateway serves their models as one OpenAI API.

    Example: [bold]skep queen --bind 127.0.0.1:8080 --admin-bind 127.0.0.1:8081[/bold]
    then on each machine [bold]skep hive --queen http://127.0.0.1:8081[/bold]
    """
    from skep.queen.daemon import QueenOptions
    from skep.queen.options import GatewayOptions
    from skep.telemetry import logs
    from skep.web.auth import require_token_off_loopback
    from skep.web.server import run

    token = read_token(token_file)
    gateway_at, admin_at = _address(bind), _address(admin_bind)
    require_token_off_loopback(admin_at[0], token)
    if (tls_cert is None) != (tls_key is None):
        raise InvalidConfig("--tls-cert and --tls-key belong together: give both or neither")
    options = QueenOptions(
        store=store or default_store(),
        advertise=advertise,
        gateway=GatewayOptions(load_wait_s=load_wait_s),
        token=token,
        certificate=(str(tls_cert), str(tls_key)) if tls_cert else None,
    )
    logs.configure("queen")
    with _bound(*gateway_at) as gateway, _bound(*admin_at) as admin:
        run(_serve(options, gateway, admin, report_fd=report_fd, exit_with_fd=exit_with_fd))


async def _serve(
    options: object,
    gateway: socket.socket,
    admin: socket.socket,
    *,
    report_fd: int | None,
    exit_with_fd: int | None,
) -> None:
    """Serve until a signal, or until the watched pipe closes."""
    from skep.queen.daemon import Queen, QueenOptions

    assert isinstance(options, QueenOptions)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if exit_with_fd is not None:
        loop.add_reader(exit_with_fd, stop.set)
    async with Queen(options, gateway=gateway, admin=admin) as running:
        console.err().print(f"gateway {running.gateway_url}/v1   admin {running.admin_url}", markup=False)
        if report_fd is not None:
            report = {"event": "ready", "gateway": running.gateway_url, "admin": running.admin_url}
            with open(report_fd, "wb") as pipe:  # noqa: ASYNC230, PTH123 - one line into a pipe
                pipe.write(msgspec.json.encode(report) + b"\n")
        await stop.wait()


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a listening socket; one that is in use is told in one line."""
    from skep.process.socket import bind_listener

    listener = bind_listener(host, port)
    try:
        yield listener
    finally:
        listener.close()


def default_store() -> str:
    """Return the address of the store that a queen of this user has by default."""
    from skep.spec.folders import folders

    return f"sqlite:{folders(os.environ).state / 'queen.db'}"


def _address(text: str) -> tuple[str, int]:
    """Parse HOST:PORT or [V6]:PORT."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:  # noqa: PLR2004 - the largest port
        raise InvalidConfig(f"{text!r} is not HOST:PORT, as in 127.0.0.1:8080")
    return host.strip("[]"), int(port)


def read_token(path: Path | None) -> str:
    """Read a token file; without one there is no token."""
    if path is None:
        return ""
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"cannot read the token file {path}: {error}") from error
    if not token:
        raise InvalidConfig(f"the token file {path} is empty: write a long random line into it")
    return token
