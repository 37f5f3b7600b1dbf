"""Hosts that rollout brings to a state: the `[[hive]]` tables of skep.toml."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from skep.errors import InvalidConfig
from skep.spec.place import explained

_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOSTNAME = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:%\]-]{0,253}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@\\-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_URL = re.compile(r"https?://[^\s/]+\S*")
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


class Violation(NamedTuple):
    """What is wrong with one declaration. `path` is within it: `workers[1].type`."""

    path: str
    text: str


def hosts_of(hives: Sequence[Mapping[str, Any]], defaults: Mapping[str, Any]) -> tuple[HiveHost, ...]:
    """Merge defaults below each table and decode. Raises: InvalidConfig that names the hive and, as `path`, the field."""
    hosts: list[HiveHost] = []
    for index, hive in enumerate(hives):
        try:
            host = msgspec.convert({**defaults, **hive}, HiveHost)
        except msgspec.ValidationError as error:
            raise _refused([Violation(*explained(str(error)))], hive, defaults, index) from error
        if found := [*violations(host), *_clashes(host, hosts)]:
            raise _refused(found, hive, defaults, index)
        hosts.append(host)
    return tuple(hosts)


def _refused(
    found: Sequence[Violation], hive: Mapping[str, Any], defaults: Mapping[str, Any], index: int
) -> InvalidConfig:
    name = hive.get("alias", f"number {index + 1}")
    first = re.split(r"[.\[]", found[0].path)[0]
    table = "hive_defaults" if first in defaults and first not in hive else f"hive[{index}]"
    texts = [one.text for one in found]
    path = f"{table}.{found[0].path}"
    return InvalidConfig(f"hive {name!r}: {'; '.join(texts)}", alias=str(name), path=path, violations=texts)


def _clashes(host: HiveHost, others: Sequence[HiveHost]) -> list[Violation]:
    """Return what no two hives may share: the alias, and the home that they are installed in."""
    found = []
    for other in others:
        if other.alias == host.alias:
            found.append(Violation("alias", f"two hives are called {host.alias!r}: aliases are unique"))
        elif other.ssh_user == host.ssh_user and is_same_login(other, host):
            found.append(
                Violation(
                    "hostname",
                    f"it is the same login as {other.alias!r}, and a home has one hive: give it another ssh_user or port",
                )
            )
    return found


def violations(host: HiveHost) -> list[Violation]:
    """Return what is wrong with a host's declaration by itself; empty when all is well."""
    checks = [
        ("alias", "alias must be letters, digits, '.', '_' or '-'", _ALIAS.fullmatch(host.alias)),
        ("hostname", f"hostname {host.hostname!r} is not one", _HOSTNAME.fullmatch(host.hostname)),
        (
            "address",
            f"address {host.address!r} is not one",
            not host.address or _HOSTNAME.fullmatch(host.address),
        ),
        (
            "ssh_user",
            f"ssh_user {host.ssh_user!r} is not one",
            not host.ssh_user or _USER.fullmatch(host.ssh_user),
        ),
        ("ssh_port", "ssh_port must be 1..65535", 0 < host.ssh_port <= PORT_MAX),
        ("hive_port", "hive_port must be 1..65535", 0 < host.hive_port <= PORT_MAX),
        ("queen", "queen must be a URL: http://… or https://…", not host.queen or _URL.fullmatch(host.queen)),
    ]
    return (
        [Violation(path, text) for path, text, good in checks if not good]
        + _install_violations(host.install)
        + _worker_violations(host.workers)
    )


def _install_violations(install: Install) -> list[Violation]:
    given = [way for way in (install.git, install.release, install.local) if way is not None]
    if len(given) != 1:
        return [Violation("install", "install needs exactly one of git, release and local")]
    found = []
    if install.release and not _SHA256.fullmatch(install.release.sha256):
        found.append(
            Violation("install.release.sha256", "install.release.sha256 must be 64 lower-case hex digits")
        )
    if install.release and not install.release.url.startswith(
        ("https://", "http://127.0.0.1", "http://localhost")
    ):
        found.append(
            Violation("install.release.url", "install.release.url must be https:// (http only on loopback)")
        )
    if install.git and (install.git.repo.startswith("-") or install.git.ref.startswith("-")):
        found.append(Violation("install.git", "install.git.repo and ref must not start with '-'"))
    return found


def _worker_violations(workers: Sequence[WorkerDecl]) -> list[Violation]:
    found = []
    for index, worker in enumerate(workers):
        here = f"workers[{index}]"
        if any(_is_same(worker, other) for other in workers[:index]):
            found.append(Violation(here, f"worker {worker.type} {worker.version} is declared twice"))
        found += [
            Violation(f"{here}.{field}", f"worker {word!r} is not a name")
            for field, word in (("type", worker.type), ("version", worker.version))
            if not _WORD.fullmatch(word)
        ]
        known = ", ".join(FEATURES)
        found += [
            Violation(f"{here}.features", f"worker {worker.type}: no feature {name!r}, known are {known}")
            for name in sorted(set(worker.features) - set(FEATURES))
        ]
    return found


def _is_same(one: WorkerDecl, other: WorkerDecl) -> bool:
    return (one.type, one.version, set(one.features)) == (other.type, other.version, set(other.features))


def is_same_login(one: HiveHost, other: HiveHost) -> bool:
    """True when both lead to one home, as far as the declarations tell; a user that is not given may be any."""
    users = {one.ssh_user, other.ssh_user} - {""}
    machines = {(host.hostname.lower(), host.ssh_port) for host in (one, other)}
    return len(machines) == 1 and len(users) <= 1


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
