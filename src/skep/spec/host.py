"""Hosts that rollout brings to a state: the `[[hive]]` tables of skep.toml."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from skep.errors import InvalidConfig

_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOSTNAME = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:%\]-]{0,253}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@\\-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
PORT_MAX = 65535
FEATURES = ("cpu", "cuda", "metal", "rocm", "vulkan")


class GitInstall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A repository and the branch, tag or commit to build."""

    repo: str
    ref: str = "main"


class ReleaseInstall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A published wheel, archive or binary."""

    url: str
    sha256: str


class LocalInstall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A wheel, a folder of wheels, an archive or a binary on the controller, relative to skep.toml."""

    path: str


class Install(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Exactly one way to get skep. `via` controller: fetched here and sent, for hosts without a network."""

    git: GitInstall | None = None
    release: ReleaseInstall | None = None
    local: LocalInstall | None = None
    via: Literal["host", "controller"] = "host"


class WorkerDecl(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An engine wanted on a host: a name of the catalogue, a version of it, and device features."""

    type: str
    version: str = "latest"
    features: tuple[str, ...] = ()


class HiveHost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[hive]]`, with `[hive_defaults]` filled in.

    `queen` is the URL that the hive registers with; with `queen_token_file` the hive and its workers listen on `address`
    (default: `hostname`), else on loopback. `config` is more skep.toml text for the host: its models and pools.
    `forward_agent` lets git on the host use the keys of the agent here (`git@` repositories); None: as ~/.ssh/config says.
    """

    alias: str
    hostname: str
    install: Install
    ssh_user: str = ""
    ssh_port: int = 22
    hive_port: int = 9200
    auto_start: bool = True
    workers: tuple[WorkerDecl, ...] = ()
    tags: tuple[str, ...] = ()
    queen: str = ""
    queen_token_file: str = ""
    identity_file: str = ""
    forward_agent: bool | None = None
    address: str = ""
    config: str = ""


def hosts_of(hives: Sequence[Mapping[str, Any]], defaults: Mapping[str, Any]) -> tuple[HiveHost, ...]:
    """Merge defaults below each table and decode. Raises: InvalidConfig that names the hive and the field."""
    hosts = tuple(_decode(hive, defaults, index) for index, hive in enumerate(hives))
    seen: set[str] = set()
    for index, host in enumerate(hosts):
        path = f"hive[{index}]"
        if host.alias in seen:
            raise InvalidConfig(
                f"two hives are called {host.alias!r}: aliases are unique",
                alias=host.alias,
                path=f"{path}.alias",
            )
        seen.add(host.alias)
        if found := violations(host):
            raise InvalidConfig(
                f"hive {host.alias!r}: {'; '.join(found)}", alias=host.alias, violations=found
            )
    return hosts


def _decode(hive: Mapping[str, Any], defaults: Mapping[str, Any], index: int) -> HiveHost:
    try:
        return msgspec.convert({**defaults, **hive}, HiveHost)
    except msgspec.ValidationError as error:
        name = hive.get("alias", f"number {index + 1}")
        text = str(error)
        field = re.search(r"at `\$\.([\w.\[\]]+)`|unknown field `(\w+)`", text)
        path = (field[1] or field[2]) if field else ""
        first = re.split(r"[.\[]", path)[0]
        table = "hive_defaults" if first in defaults and first not in hive else f"hive[{index}]"
        raise InvalidConfig(f"hive {name!r}: {text}", alias=str(name), path=f"{table}.{path}") from error


def violations(host: HiveHost) -> list[str]:
    """Return what is wrong with a host's declaration; empty when all is well."""
    checks = {
        "alias must be letters, digits, '.', '_' or '-'": _ALIAS.fullmatch(host.alias),
        "hostname is not one": _HOSTNAME.fullmatch(host.hostname),
        "ssh_user is not one": not host.ssh_user or _USER.fullmatch(host.ssh_user),
        "ssh_port must be 1..65535": 0 < host.ssh_port <= PORT_MAX,
        "hive_port must be 1..65535": 0 < host.hive_port <= PORT_MAX,
    }
    return (
        [text for text, good in checks.items() if not good]
        + _install_violations(host.install)
        + [text for worker in host.workers for text in _worker_violations(worker)]
    )


def _install_violations(install: Install) -> list[str]:
    given = [way for way in (install.git, install.release, install.local) if way is not None]
    if len(given) != 1:
        return ["install needs exactly one of git, release and local"]
    found = []
    if install.release and not _SHA256.fullmatch(install.release.sha256):
        found.append("install.release.sha256 must be 64 lower-case hex digits")
    if install.release and not install.release.url.startswith(
        ("https://", "http://127.0.0.1", "http://localhost")
    ):
        found.append("install.release.url must be https:// (http only on loopback)")
    if install.git and (install.git.repo.startswith("-") or install.git.ref.startswith("-")):
        found.append("install.git.repo and ref must not start with '-'")
    return found


def _worker_violations(worker: WorkerDecl) -> list[str]:
    found = [
        f"worker {word!r} is not a name"
        for word in (worker.type, worker.version)
        if not _WORD.fullmatch(word)
    ]
    unknown = sorted(set(worker.features) - set(FEATURES))
    return found + [
        f"worker {worker.type}: no feature {name!r}, known are {', '.join(FEATURES)}" for name in unknown
    ]


def select(hosts: Sequence[HiveHost], names: Sequence[str]) -> tuple[list[HiveHost], list[str]]:
    """Return the hosts that aliases and `tag:NAME`s pick (all for none), and the names that picked nothing."""
    if not names:
        return list(hosts), []
    picks = {name: [host for host in hosts if _is_picked(host, name)] for name in names}
    chosen = {host.alias for picked in picks.values() for host in picked}
    return [host for host in hosts if host.alias in chosen], [
        name for name, picked in picks.items() if not picked
    ]


def _is_picked(host: HiveHost, name: str) -> bool:
    return name.removeprefix("tag:") in host.tags if name.startswith("tag:") else name == host.alias
