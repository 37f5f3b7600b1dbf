"""TCP connections to hosts, begun before the SSH library is there.

That library takes longer to import than a host to answer: a server that was dialed meanwhile has started a process for us
and waits. Only where the way is plain: a numeric address, and no ~/.ssh/config that could lead elsewhere. Whatever does not
come about is dialed again by the library, which also tells what is wrong.
"""

import ipaddress
import select
import socket
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from skep.spec.host import HiveHost


class Dialed:
    """Connections under way, each to be taken once. Use with `with`: those that nobody took are closed."""

    def __init__(self, hosts: Iterable[HiveHost], config: Path) -> None:
        self._sockets: dict[tuple[str, int], socket.socket] = {}
        if config.exists():
            return
        for host in hosts:
            where = (host.hostname, host.ssh_port)
            if where not in self._sockets and (dialed := _dial(*where)):
                self._sockets[where] = dialed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for dialed in self._sockets.values():
            dialed.close()
        self._sockets.clear()

    def take(self, host: str, port: int) -> socket.socket | None:
        """Return a connection that stands, or None."""
        dialed = self._sockets.pop((host, port), None)
        if dialed is None:
            return None
        poller = select.poll()
        poller.register(dialed, select.POLLOUT)
        if poller.poll(0) and dialed.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
            return dialed
        dialed.close()
        return None


def _dial(host: str, port: int) -> socket.socket | None:
    try:
        is_old = isinstance(ipaddress.ip_address(host), ipaddress.IPv4Address)
    except ValueError:  # A name: to look it up may take long.
        return None
    with ExitStack() as undo:
        try:
            dialed = undo.enter_context(socket.socket(socket.AF_INET if is_old else socket.AF_INET6))
            dialed.settimeout(0)
            dialed.connect_ex((host, port))
        except OSError:  # The library meets it again, and tells it.
            return None
        undo.pop_all()
        return dialed
