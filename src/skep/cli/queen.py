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
    config: Annotated[Path | None, typer.Option(help="A skep.toml instead of ./skep.toml.")] = None,
    bind: Annotated[str | None, typer.Option(help="Where clients ask; 127.0.0.1:8080.")] = None,
    admin_bind: Annotated[
        str | None, typer.Option(help="Where hives register, and the dashboard; 127.0.0.1:8081.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(help="sqlite:PATH or etcd:http://a,http://b,http://c; a file of yours by default."),
    ] = None,
    token_file: Annotated[
        str | None, typer.Option(help="File with the admin token; hives need it too.")
    ] = None,
    tls_cert: Annotated[str | None, typer.Option(help="Certificate chain (PEM).")] = None,
    tls_key: Annotated[str | None, typer.Option(help="Its private key (PEM).")] = None,
    load_wait_s: Annotated[
        float | None, typer.Option(help="How long a request waits for a model that loads; 60.")
    ] = None,
    record_trace: Annotated[
        str | None, typer.Option(help="Record requests (no prompts) to this file, for the arena.")
    ] = None,
    advertise: Annotated[
        str | None, typer.Option(help="Admin URL by which other queens reach this one.")
    ] = None,
    report_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    exit_with_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the orchestrator: nodes register with it, and its gateway serves their models as one OpenAI API.

    Example: [bold]skep queen[/bold], and on each machine [bold]skep hive --queen http://QUEEN:8081[/bold].
    Then point any OpenAI client at http://QUEEN:8080/v1, and a browser at http://QUEEN:8081.
    """
    from skep.cli.settings import load_config
    from skep.queen.daemon import QueenOptions
    from skep.queen.options import GatewayOptions
    from skep.queen.spans import endpoint_of
    from skep.spec.config import Layer
    from skep.telemetry import logs
    from skep.web.auth import require_token_off_loopback
    from skep.web.server import run

    names = (
        "bind",
        "admin_bind",
        "store",
        "token_file",
        "tls_cert",
        "tls_key",
        "load_wait_s",
        "record_trace",
        "advertise",
    )
    here = locals()
    flags = {name: here[name] for name in names if here[name] is not None}
    settings = load_config(config, flags=Layer("flags", {"queen": flags} if flags else {})).config.queen
    token = read_token(Path(settings.token_file) if settings.token_file else None)
    gateway_at, admin_at = _address(settings.bind), _address(settings.admin_bind)
    require_token_off_loopback(admin_at[0], token)
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise InvalidConfig("tls_cert and tls_key belong together: give both or neither")
    options = QueenOptions(
        store=settings.store or default_store(),
        gateway=GatewayOptions(load_wait_s=settings.load_wait_s),
        token=token,
        advertise=settings.advertise,
        host_names=(*settings.host_names, gateway_at[0], admin_at[0]),
        certificate=(settings.tls_cert, settings.tls_key) if settings.tls_cert else None,
        record_trace=settings.record_trace,
        proofs=settings.proofs,
        spans_endpoint=endpoint_of(os.environ),
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
