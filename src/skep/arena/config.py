"""The table `[arena]` of skep.toml: what the commands do where no option says otherwise.

[arena]
driver = "embedded"                    # or simkube, recorded
nodes = ["3x4cpu/8Gi"]
scenario_folders = ["scenarios"]       # joined to the built-in ones in `skep arena bench`
safeguards = {cpu_m_max = 16000, memory_bytes_max = 34359738368, replicas_max = 100}
[[arena.hooks]]
phase = "pre_start"
argv = ["./prepare.sh"]
"""

from typing import Any

import msgspec

from skep.arena.hooks import Hook
from skep.arena.safeguards import Safeguards
from skep.errors import InvalidConfig


class ArenaConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table, with its defaults."""

    driver: str = "embedded"
    nodes: tuple[str, ...] = ()
    scenario_folders: tuple[str, ...] = ()
    safeguards: Safeguards = Safeguards()
    hooks: tuple[Hook, ...] = ()


def parse_arena_config(table: dict[str, Any]) -> ArenaConfig:
    """Return the table as it is meant. Raises: InvalidConfig."""
    try:
        found = msgspec.convert(table, ArenaConfig)
    except msgspec.ValidationError as error:
        raise InvalidConfig(f"skep.toml: [arena]: {error}") from error
    bounds = found.safeguards
    if min(bounds.cpu_m_max, bounds.memory_bytes_max, bounds.replicas_max) <= 0:
        raise InvalidConfig("skep.toml: [arena]: safeguards are more than 0")
    return found
