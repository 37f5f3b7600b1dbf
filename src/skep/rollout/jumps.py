"""What the user's `~/.ssh/config` says for a machine: the way to it through others, hop by hop, and the keys to use."""

import getpass
import re
from pathlib import Path
from typing import Any, NamedTuple

from skep.errors import InvalidConfig
from skep.rollout.sshlib import asyncssh

JUMPS_MAX = 8
FIRST_PASS = (False, False, False)  # Neither reloaded, nor for a canonical name, nor `Match final`.
_HOP = re.compile(r"(?:ssh://)?(?:([^@\s]+)@)?(\[[^\]\s]+\]|[^:\[\]\s/]+)(?::(\d{1,5}))?/?")


class Hop(NamedTuple):
    """A machine on the way. `user` "" and `port` 0: what the configuration says for `host`, else the default."""

    host: str
    user: str = ""
    port: int = 0


def jumps_to(hop: Hop, config: Path | None) -> tuple[Hop, ...]:
    """Return the machines to go through, the nearest first; none where there is no ProxyJump.

    The first of a list may itself be behind another; a `Host *` that would send a jump host through itself is not followed,
    as in OpenSSH. Raises: InvalidConfig, when there are more than `JUMPS_MAX` or one is not a machine's name.
    """
    way: tuple[Hop, ...] = ()
    target = hop
    while found := _declared(target, config):
        if any(one.host == target.host for one in found):
            break
        way = (*found, *way)
        if len(way) > JUMPS_MAX:
            raise InvalidConfig(
                f"{config}: the way to {hop.host} has more than {JUMPS_MAX} jumps: does a ProxyJump lead in a circle?",
                host=hop.host,
            )
        target = found[0]
    return way


def identities(hop: Hop, config: Path | None) -> list[str] | None:
    """Return the key files that the configuration names for a machine and that are there; None when it names none.

    OpenSSH passes over one that is not there, where asyncssh by itself fails.
    """
    named = _told(hop, config, "IdentityFile")
    return [file for file in named if Path(file).expanduser().exists()] if named else None


def _declared(hop: Hop, config: Path | None) -> list[Hop]:
    told = _told(hop, config, "ProxyJump")
    if not told or config is None:
        return []
    return [_parsed(one.strip(), config) for one in str(told).split(",") if one.strip()]


def _told(hop: Hop, config: Path | None, option: str) -> Any:
    """Return what the configuration says for a machine; None, without reading it in full, where it has no such word."""
    if (
        config is None
        or not config.exists()
        or option.lower() not in config.read_text(errors="replace").lower()
    ):
        return None
    asked = (getpass.getuser(), hop.user or (), hop.host, hop.port or ())
    return asyncssh.config.SSHClientConfig.load(None, [str(config)], *FIRST_PASS, *asked).get(option)


def _parsed(text: str, config: Path) -> Hop:
    """Read `[user@]host[:port]` or an ssh:// URI, as ssh_config(5) has them."""
    found = _HOP.fullmatch(text)
    if found is None:
        raise InvalidConfig(f"{config}: ProxyJump {text!r} is not [user@]host[:port]", path=str(config))
    return Hop(found[2].strip("[]"), found[1] or "", int(found[3] or 0))
