"""Drift: how hosts differ from their declarations, read and never changed. Unknown is its own answer."""

import asyncio
from collections.abc import Sequence

from skep.errors import SkepError
from skep.rollout.apply import read_facts
from skep.rollout.artifact import Artifact
from skep.rollout.facts import HostFacts
from skep.rollout.plan import AGAIN
from skep.rollout.report import Drift, Issue, StatusReport
from skep.rollout.transport import Connector
from skep.spec.host import HiveHost


async def status(
    connector: Connector,
    hosts: Sequence[HiveHost],
    artifacts: dict[str, Artifact],
    config_keys: dict[str, str],
    *,
    extra: Sequence[HiveHost] = (),
    jobs: int = 16,
) -> StatusReport:
    """Read every host once. `artifacts` and `config_keys` map aliases to what should be there; `extra` are no longer declared."""
    bound = asyncio.Semaphore(jobs)

    async def one(host: HiveHost, artifact: Artifact | None) -> list[Drift]:
        async with bound:
            try:
                transport = await connector.connect(host)
                try:
                    facts = await read_facts(transport, host.alias)
                finally:
                    await transport.aclose()
            except SkepError as error:
                return [Drift(hive=host.alias, issue=Issue.UNREACHABLE, details=str(error))]
        return drift_of(host, facts, artifact, config_keys[host.alias]) if artifact else extra_of(host, facts)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(host, artifacts[host.alias])) for host in hosts]
        tasks += [group.create_task(one(host, None)) for host in extra]
    found = tuple(drift for task in tasks for drift in task.result())
    known = [drift for drift in found if drift.issue is not Issue.UNREACHABLE]
    verdict = "drift" if known else "unknown" if found else "ok"
    return StatusReport(status=verdict, drift=found, hives=len(hosts))


def drift_of(host: HiveHost, facts: HostFacts, artifact: Artifact, config_key: str) -> list[Drift]:
    """Return how a host differs from its declaration."""
    found: list[tuple[Issue, str]] = []
    installed = facts.current_key.partition(AGAIN)[0]
    if not facts.current_key:
        found.append((Issue.MISSING_HIVE, "no hive is installed"))
    elif installed != artifact.key or facts.manifest.key != facts.current_key:
        found.append((Issue.VERSION, f"{installed} is installed, {artifact.key} is declared"))
    elif facts.manifest.config_key != config_key:
        found.append((Issue.CONFIG, "the configuration or the token on the host is not the declared one"))
    elif host.auto_start and not facts.is_serving:
        found.append((Issue.STOPPED, "the hive is installed and does not run"))
    found += _workers(host, facts)
    return [Drift(hive=host.alias, issue=issue, details=details) for issue, details in found]


def _workers(host: HiveHost, facts: HostFacts) -> list[tuple[Issue, str]]:
    have = {worker.type: worker for worker in facts.manifest.workers if worker.slug in facts.workers}
    found: list[tuple[Issue, str]] = []
    for wanted in host.workers:
        installed = have.pop(wanted.type, None)
        if installed is None:
            found.append((Issue.MISSING_WORKER, f"{wanted.type} {wanted.version}"))
        elif installed.version != wanted.version:
            found.append(
                (Issue.VERSION, f"{wanted.type}: {installed.version} is there, {wanted.version} declared")
            )
        elif sorted(installed.features) != sorted(wanted.features):
            features = f"{','.join(installed.features) or 'none'} is there, {','.join(wanted.features) or 'none'} declared"
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
            details="not declared any more; remove it with --remove-extra",
        )
    ]
