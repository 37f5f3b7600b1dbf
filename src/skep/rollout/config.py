"""The rollout's part of skep.toml, read from a file; an error points at the file and the line."""

from pathlib import Path

import msgspec

from skep.errors import InvalidConfig
from skep.spec.config import check as check_layer
from skep.spec.config import line_of, read_layer
from skep.spec.host import HiveHost, hosts_of


class RolloutConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The declared hosts. `base` is the file's folder, which relative paths in it start from."""

    hosts: tuple[HiveHost, ...]
    base: Path


def load(path: Path) -> RolloutConfig:
    """Read a skep.toml. Raises: InvalidConfig."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise InvalidConfig(f"{path}: no such file. Give one with --config", path=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path}: cannot be read: {error}", path=str(path)) from error
    config = check_layer(read_layer(text, source=str(path)))
    try:
        hosts = hosts_of(config.hive, config.hive_defaults)
    except InvalidConfig as error:
        line = line_of(text, error.facts.get("path", ""))
        raise InvalidConfig(
            f"{path}:{line}: {error}" if line else f"{path}: {error}", **error.facts
        ) from error
    if not hosts:
        raise InvalidConfig(f"{path} declares no [[hive]]: there is nothing to bring anywhere")
    return RolloutConfig(hosts=hosts, base=path.parent.absolute())
