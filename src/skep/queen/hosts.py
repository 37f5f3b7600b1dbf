"""Which Host headers are answered: a page that rebinds its name to this machine's address is not."""

import ipaddress
from collections.abc import Iterable

from skep.errors.web import MalformedHttp
from skep.web.auth import LOOPBACK_HOSTS


class HostCheck:
    """Anonymous requests must name this host; a request with a key shows by it that no browser was tricked."""

    def __init__(self, names: Iterable[str] = (), *, is_strict: bool = True) -> None:
        self._names = LOOPBACK_HOSTS | frozenset(name.lower() for name in names)
        self._is_strict = is_strict

    def check(self, host: bytes, *, is_anonymous: bool) -> None:
        """Raises: MalformedHttp when the host is not one of ours."""
        if self._is_strict and is_anonymous and not self.knows(host.decode("latin-1")):
            raise MalformedHttp(
                "the Host header names another machine: use 127.0.0.1 or localhost, or send a key"
            )

    def knows(self, host: str) -> bool:
        """True when a Host header's value names this host, on any port; an address cannot be rebound, so any will do."""
        name = host.lower().strip()
        name = name[1 : name.index("]")] if name.startswith("[") and "]" in name else name.partition(":")[0]
        return name in self._names or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
