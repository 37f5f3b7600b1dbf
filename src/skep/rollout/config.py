"""The rollout's part of skep.toml, read from a file; an error points at the file and the line."""

from pathlib import Path

import msgspec

from skep.errors import InvalidConfig
from skep.spec.config import check as check_layer
from skep.spec.config import read_layer
from skep.spec.host import HiveHost, hosts_of
from skep.spec.place import line_of

WRITTEN_BY_SKEP = "hive_daemon"


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
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InvalidConfig(f"{path}:{line}: this is not UTF-8", path=str(path)) from error
    config = check_layer(read_layer(text, source=str(path)))
    try:
        hosts = hosts_of(config.hive, config.hive_defaults)
        for index, host in enumerate(hosts):
            table = f"hive[{index}]" if "config" in config.hive[index] else "hive_defaults"
            _check_config(host, f"{table}.config")
    except InvalidConfig as error:
        line = line_of(text, error.facts.get("path", ""))
        raise InvalidConfig(
            f"{path}:{line}: {error}" if line else f"{path}: {error}", **error.facts
        ) from error
    if not hosts:
        raise InvalidConfig(f"{path} declares no [[hive]]: there is nothing to bring anywhere")
    base = path.parent.absolute()
    return RolloutConfig(hosts=tuple(_with_identity(host, base) for host in hosts), base=base)


def _check_config(host: HiveHost, path: str) -> None:
    """Read the hive's own configuration as the hive will: what is wrong with it shows here, not after the switch."""
    try:
        values = read_layer(host.config, source="config").values
    except InvalidConfig as error:
        raise InvalidConfig(f"hive {host.alias!r}: {error}", alias=host.alias, path=path) from error
    if WRITTEN_BY_SKEP in values:
        raise InvalidConfig(
            f"hive {host.alias!r}: config has [{WRITTEN_BY_SKEP}], which skep writes: set hive_port, queen and address",
            alias=host.alias,
            path=path,
        )


def _with_identity(host: HiveHost, base: Path) -> HiveHost:
    if not host.identity_file:
        return host
    file = base / Path(host.identity_file).expanduser()
    return msgspec.structs.replace(host, identity_file=str(file))
