"""Listening sockets that are bound by the owner and handed to a child, and whose a listening socket is."""

import errno
import socket
from contextlib import suppress

import psutil

from skep.errors.process import BindFailed, PortInUse
from skep.process import group

BACKLOG = 2048


def bind_listener(host: str, port: int = 0) -> socket.socket:
    """Return a listening socket that no child inherits unless its number is in `pass_fds`; port 0 picks a free one.

    Whoever hands it over closes his own copy, so that the port dies with the child. Raises: PortInUse, BindFailed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise BindFailed(
            f"cannot listen on {host}:{port}: {error}", host=host, port=port, reason=str(error)
        ) from error
    try:
        # A successor may bind the port while old connections linger. Where the system picks one, only after it has:
        # before, it might give one port to two.
        if port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.listen(BACKLOG)
        listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            message = (
                f"port {port} on {host} is in use: stop the program that holds it, or choose another port"
            )
            raise PortInUse(message, host=host, port=port) from error
        raise BindFailed(
            f"cannot listen on {host}:{port}: {error.strerror}", host=host, port=port, reason=str(error)
        ) from error
    return listener


def group_listens(pgid: int, port: int) -> bool:
    """True when a member of the process group holds a listening TCP socket on `port`: then the port is the group's."""
    for member in group.members(pgid):
        with suppress(psutil.Error):
            for one in psutil.Process(member.pid).net_connections(kind="tcp"):
                if one.status == psutil.CONN_LISTEN and one.laddr.port == port:
                    return True
    return False
