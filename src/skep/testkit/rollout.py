"""Rollout in tests: a harness over any host lab, assertions about hosts, and made-up configurations of any size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from skep.rollout.apply import read_facts
from skep.rollout.facts import HostFacts
from skep.rollout.plan import Options
from skep.rollout.report import StatusReport, SyncReport
from skep.rollout.ssh import SshConnector
from skep.rollout.status import status, wanted
from skep.rollout.sync import Settings, Sync
from skep.rollout.transport import Connector
from skep.spec.host import HiveHost, Install, LocalInstall, WorkerDecl
from skep.testkit.hosts.scripted import ScriptedLab


class Lab(Protocol):
    """What every host lab has: the key that opens its hosts, and whom they are."""

    folder: Path
    identity: Path
    known_hosts: Path


async def _no_pause(_: float) -> None:
    """Retry at once: a lab's hosts need no patience."""


class RolloutHarness:
    """Runs syncs against a lab. `folder` is what relative paths in declarations start from."""

    def __init__(self, lab: Lab, folder: Path, *, keepalive_s: float = 15.0) -> None:
        self._folder = folder
        self._connector: Connector = (
            lab
            if isinstance(lab, ScriptedLab)
            else SshConnector(
                known_hosts=lab.known_hosts, identities=(lab.identity,), agent=False, keepalive_s=keepalive_s
            )
        )

    async def sync(
        self,
        hosts: Sequence[HiveHost],
        *,
        options: Options | None = None,
        dry_run: bool = False,
        jobs: int = 16,
    ) -> SyncReport:
        """Bring hosts to their state, and return the report."""
        settings = Settings(
            base=self._folder,
            cache=self._folder / "cache",
            options=options or Options(),
            dry_run=dry_run,
            jobs=jobs,
        )
        return await Sync(self._connector, settings, sleep=_no_pause).run(hosts)

    async def status(self, hosts: Sequence[HiveHost]) -> StatusReport:
        """Tell how hosts differ from their declarations, as `skep package-status` does."""
        cache = self._folder / "cache"
        wants = await wanted(hosts, base=self._folder, cache=cache)
        return await status(self._connector, hosts, wants)

    async def facts(self, host: HiveHost) -> HostFacts:
        """Read a host as rollout does. Raises: HostUnreachable, FactsUnreadable."""
        transport = await self._connector.connect(host)
        try:
            return await read_facts(transport, host.alias)
        finally:
            await transport.aclose()

    async def verify_hive_installed(self, host: HiveHost) -> bool:
        """True when the host's skep is whole, linked and runs."""
        transport = await self._connector.connect(host)
        try:
            facts = await read_facts(transport, host.alias)
            ran = await transport.run('"$HOME"/.local/bin/skep --version </dev/null', limit_s=30)
        finally:
            await transport.aclose()
        return bool(facts.current_key) and facts.manifest.key == facts.current_key and ran.exit_status == 0


async def assert_hive_installed(harness: RolloutHarness, host: HiveHost) -> None:
    """Fail, with the host's facts, unless a whole hive is installed and runs. Raises: AssertionError."""
    if not await harness.verify_hive_installed(host):
        raise AssertionError(f"no hive on {host.alias}: {await harness.facts(host)}")


async def assert_worker_installed(harness: RolloutHarness, host: HiveHost, worker_type: str) -> None:
    """Fail unless the host has an engine of this type, in its manifest and on its disk. Raises: AssertionError."""
    facts = await harness.facts(host)
    slugs = [worker.slug for worker in facts.manifest.workers if worker.type == worker_type]
    if not any(slug in facts.workers for slug in slugs):
        raise AssertionError(f"no {worker_type} on {host.alias}: it has {sorted(facts.workers)}")


def create_test_config(
    hives: int,
    workers_per_hive: int,
    *,
    hostname: str = "127.0.0.1",
    first_port: int = 2222,
    install: Install | None = None,
) -> list[HiveHost]:
    """Return so many declared hives on consecutive ports, each with so many workers."""
    return [
        HiveHost(
            alias=f"test-hive-{number}",
            hostname=hostname,
            ssh_port=first_port + number,
            ssh_user="testuser",
            install=install or Install(local=LocalInstall(path="skep")),
            workers=tuple(
                WorkerDecl(type=f"test-worker-{worker}", features=("cpu",))
                for worker in range(workers_per_hive)
            ),
        )
        for number in range(hives)
    ]
