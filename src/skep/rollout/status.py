"""Drift: how hosts differ from their declarations, read and never changed. Unknown is its own answer."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from skep.errors import SkepError
from skep.errors.rollout import ArtifactMissing
from skep.rollout.apply import read_facts
from skep.rollout.artifact import Artifact, resolve
from skep.rollout.facts import HostFacts
from skep.rollout.manifest import declared
from skep.rollout.plan import AGAIN
from skep.rollout.recipes import config_key
from skep.rollout.report import Drift, Issue, StatusReport
from skep.rollout.sync import token_of
from skep.rollout.transport import Connector
from skep.spec.host import HiveHost, Install


class Wanted(NamedTuple):
    """What a host should have: its version, and the identity of its configuration."""

    artifact: Artifact
    config_key: str


async def wanted(hosts: Sequence[HiveHost], *, base: Path, cache: Path) -> dict[str, Wanted | SkepError]:
    """Look up what each alias should have, each `install` once. What cannot be looked up is its hosts' trouble alone."""
    installs = {msgspec.json.encode(host.install): host.install for host in hosts}
    found = await asyncio.gather(*(_resolved(one, base, cache) for one in installs.values()))
    artifacts = dict(zip(installs, found, strict=True))
    return {host.alias: _wanted(host, artifacts[msgspec.json.encode(host.install)], base) for host in hosts}


async def _resolved(install: Install, base: Path, cache: Path) -> Artifact | SkepError:
    try:
        return await resolve(install, base=base, cache=cache)
    except SkepError as error:
        return error
    except OSError as error:
        return ArtifactMissing(f"{error.filename} cannot be read: {error.strerror}", path=str(error.filename))


def _wanted(host: HiveHost, artifact: Artifact | SkepError, base: Path) -> Wanted | SkepError:
    try:
        token = token_of(host, base)
    except SkepError as error:
        return error
    if isinstance(artifact, SkepError):
        return artifact
    return Wanted(artifact, config_key(host, token.digest))


async def status(
    connector: Connector,
    hosts: Sequence[HiveHost],
    wants: Mapping[str, Wanted | SkepError],
    *,
    extra: Sequence[HiveHost] = (),
    jobs: int = 16,
) -> StatusReport:
    """Read every host once. `wants` maps aliases to what should be there; `extra` are no longer declared."""
    bound = asyncio.Semaphore(jobs)

    async def one(host: HiveHost, compare: Callable[[HiveHost, HostFacts], list[Drift]]) -> list[Drift]:
        async with bound:
            try:
                transport = await connector.connect(host)
                try:
                    facts = await read_facts(transport, host.alias)
                finally:
                    await transport.aclose()
            except SkepError as error:
                return [Drift(hive=host.alias, issue=Issue.UNREACHABLE, details=str(error))]
        return compare(host, facts)

    def compared(host: HiveHost, facts: HostFacts) -> list[Drift]:
        return drift_of(host, facts, wants[host.alias])

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(host, compared)) for host in hosts]
        gone = [group.create_task(one(host, extra_of)) for host in extra]
    found = tuple(drift for task in (*tasks, *gone) for drift in task.result())
    known = [drift for drift in found if drift.issue not in {Issue.UNREACHABLE, Issue.UNDETERMINED}]
    verdict = "drift" if known else "unknown" if found else "ok"
    return StatusReport(status=verdict, drift=found, hives=len(hosts))


def drift_of(host: HiveHost, facts: HostFacts, want: Wanted | SkepError) -> list[Drift]:
    """Return how a host differs from its declaration."""
    installed = _undetermined(want) if isinstance(want, SkepError) else _hive(host, facts, want)
    found = [*installed, *_workers(host, facts)]
    return [Drift(hive=host.alias, issue=issue, details=details) for issue, details in found]


def _undetermined(error: SkepError) -> list[tuple[Issue, str]]:
    return [(Issue.UNDETERMINED, f"what is declared cannot be looked up: {error}")]


def _hive(host: HiveHost, facts: HostFacts, want: Wanted) -> list[tuple[Issue, str]]:
    installed = facts.current_key.partition(AGAIN)[0]
    if not facts.current_key:
        return [(Issue.MISSING_HIVE, "no hive is installed")]
    if installed != want.artifact.key or facts.manifest.key != facts.current_key:
        return [(Issue.VERSION, f"{installed} is installed, {want.artifact.key} is declared")]
    if facts.manifest.config_key != want.config_key:
        return [(Issue.CONFIG, "the configuration or the token on the host is not the declared one")]
    if host.auto_start and not facts.is_serving:
        return [(Issue.STOPPED, "the hive is installed and does not run")]
    return []


def _workers(host: HiveHost, facts: HostFacts) -> list[tuple[Issue, str]]:
    """Compare engines. Those that are as declared are set aside first: a host may have two versions of one."""
    have = {worker.slug: worker for worker in facts.manifest.workers if worker.slug in facts.workers}
    missing = [worker for worker in declared(host.workers) if have.pop(worker.slug, None) is None]
    found: list[tuple[Issue, str]] = []
    for wanted in missing:
        other = next((worker for worker in have.values() if worker.type == wanted.type), None)
        if other is None:
            found.append((Issue.MISSING_WORKER, f"{wanted.type} {wanted.version}"))
            continue
        del have[other.slug]
        if other.version != wanted.version:
            found.append(
                (Issue.VERSION, f"{wanted.type}: {other.version} is there, {wanted.version} declared")
            )
        else:
            features = f"{','.join(other.features) or 'none'} is there, {','.join(wanted.features) or 'none'} declared"
            found.append((Issue.FEATURES, f"{wanted.type}: {features}"))
    return found + [
        (Issue.EXTRA_WORKER, f"{left.type} {left.version} is not declared") for left in have.values()
    ]


def extra_of(host: HiveHost, facts: HostFacts) -> list[Drift]:
    """Return that a host which is no longer declared still has a hive."""
    if not facts.current_key and not facts.manifest.key:
        return []
    return [
        Drift(
            hive=host.alias,
            issue=Issue.EXTRA_HIVE,
            details=f"{host.hostname} is not declared any more; remove it with sync --remove-extra",
        )
    ]
