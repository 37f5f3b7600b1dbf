"""All hosts to their declared state: in parallel under a bound, upgrades rolling, each failure told and none hidden."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from skep.errors import SkepError
from skep.errors.rollout import ArtifactMissing, ConnectionLost, HostChanged, HostUnreachable, StepFailed
from skep.provision.digest import file_sha256
from skep.rollout import plan as planning
from skep.rollout.apply import OnStep, perform, planned, read_facts
from skep.rollout.artifact import Artifact, resolve
from skep.rollout.facts import HostFacts
from skep.rollout.plan import NO_TOKEN, HostPlan, Options, Token
from skep.rollout.report import HostOutcome, HostReport, StepReport, SyncReport, summarize
from skep.rollout.transport import Connector, Transport
from skep.spec.host import HiveHost

RETRIES_MAX = 3
BACKOFF_S_FIRST, BACKOFF_S_MAX = 1.0, 10.0
JOBS_MAX_DEFAULT = 16
NETWORK = (HostUnreachable, ConnectionLost, HostChanged)

OnHost = Callable[[str, str, str], None]  # (alias, step, what)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a sync runs. `max_unavailable` bounds how many serving hosts are switched at once."""

    base: Path
    cache: Path
    options: Options = Options()
    dry_run: bool = False
    jobs: int = JOBS_MAX_DEFAULT
    max_unavailable: int = 1


class Sync:
    """One run over a set of hosts. A failed gate stops the roll: hosts that are still serving keep their version."""

    def __init__(
        self,
        connector: Connector,
        settings: Settings,
        *,
        on_host: OnHost = lambda *_: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._connector, self._settings, self._on_host = connector, settings, on_host
        self._sleep, self._clock, self._now_s = sleep, clock, now_s
        self._jobs = asyncio.Semaphore(settings.jobs)
        self._rolling = asyncio.Semaphore(settings.max_unavailable)
        self._artifacts: dict[Hashable, asyncio.Task[Artifact]] = {}
        self._stopped_by = ""

    async def run(self, hosts: Sequence[HiveHost], *, removed: Sequence[HiveHost] = ()) -> SyncReport:
        """Bring every host to its state. Never raises for a host: its failure is in the report."""
        began_s = self._clock()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._host(host, is_removed=False)) for host in hosts]
                tasks += [group.create_task(self._host(host, is_removed=True)) for host in removed]
        finally:
            for task in self._artifacts.values():
                task.cancel()
            await asyncio.gather(*self._artifacts.values(), return_exceptions=True)
        return summarize(
            (task.result() for task in tasks),
            round(self._clock() - began_s, 4),
            workers_declared={host.alias: len(host.workers) for host in hosts},
        )

    async def _host(self, host: HiveHost, *, is_removed: bool) -> HostReport:
        async with self._jobs:
            began_s, retries = self._clock(), 0
            while True:
                try:
                    report = await self._attempt(host, is_removed=is_removed)
                except NETWORK as error:
                    if retries >= RETRIES_MAX:
                        return self._failed(host, error, began_s, retries)
                    pause_s = min(BACKOFF_S_FIRST * 2**retries, BACKOFF_S_MAX)
                    self._on_host(host.alias, "retry", f"{error}; again in {pause_s:g} s")
                    retries += 1
                    await self._sleep(pause_s)
                except SkepError as error:
                    return self._failed(host, error, began_s, retries)
                except (
                    OSError
                ) as error:  # A wheel that cannot be read, a cache that is full: this host's trouble alone.
                    unreadable = ArtifactMissing(f"{host.alias}: {error}", alias=host.alias)
                    return self._failed(host, unreadable, began_s, retries)
                else:
                    return msgspec.structs.replace(
                        report, seconds=round(self._clock() - began_s, 4), retries=retries
                    )

    async def _attempt(self, host: HiveHost, *, is_removed: bool) -> HostReport:
        self._on_host(host.alias, "connect", "begin")
        transport = await self._connector.connect(host)
        try:
            facts = await read_facts(transport, host.alias)
            brought: list[StepReport] = []
            if is_removed:
                plan = planning.plan_uninstall(host.alias, facts)
            else:
                plan = await self._plan(host, facts, brought)
            if plan.is_noop:
                return HostReport(alias=host.alias, status=HostOutcome.ALREADY, key=plan.key)
            if self._settings.dry_run:
                return HostReport(
                    alias=host.alias,
                    status=HostOutcome.PLANNED,
                    key=plan.key,
                    steps=planned(plan),
                    workers=plan.workers_added,
                    workers_removed=plan.workers_removed,
                )
            report = await self._apply(transport, host, plan, facts)
            return msgspec.structs.replace(report, steps=(*brought, *report.steps))
        finally:
            await transport.aclose()

    async def _plan(self, host: HiveHost, facts: HostFacts, brought: list[StepReport]) -> HostPlan:
        """Plan a host. What had to be brought here for it first is noted in `brought`, with its time."""
        options, install = self._settings.options, msgspec.json.encode(host.install)
        artifact = await self._once(
            install, lambda: resolve(host.install, base=self._settings.base, cache=self._settings.cache)
        )
        if host.install.via == "controller" and planning.stages(host, facts, artifact, options):
            self._on_host(host.alias, "bring", "begin")
            began_s = self._clock()
            artifact = await self._brought(install, artifact, facts)
            seconds = round(self._clock() - began_s, 4)
            brought.append(StepReport(name="bring", outcome="done", seconds=seconds, detail=artifact.source))
        token = token_of(host, self._settings.base)
        return planning.plan(host, facts, artifact, options, now_s=self._now_s(), token=token)

    async def _brought(self, install: bytes, artifact: Artifact, facts: HostFacts) -> Artifact:
        """Bring what is sent here; what is gathered is another for each kind of host."""
        # Only where something is brought: no part of a no-op's start.
        from skep.rollout.target import target_of
        from skep.rollout.wheelhouse import bring

        target = None
        if artifact.is_gathered:
            python = planning.python_version(facts)
            target = target_of(kernel=facts.kernel, machine=facts.machine, libc=facts.libc, python=python)
        return await self._once(
            (install, target), lambda: bring(artifact, target=target, cache=self._settings.cache)
        )

    async def _once(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, Artifact]]) -> Artifact:
        """Make each thing once, however many hosts share it."""
        if key not in self._artifacts:
            self._artifacts[key] = asyncio.create_task(make())
        return await asyncio.shield(self._artifacts[key])

    async def _apply(
        self, transport: Transport, host: HiveHost, plan: HostPlan, facts: HostFacts
    ) -> HostReport:
        if not facts.is_serving:
            return await self._perform(transport, host, plan, facts)
        async with self._rolling:
            if self._stopped_by:
                error = f"the roll stopped at {self._stopped_by}; this host keeps its version"
                return HostReport(
                    alias=host.alias, status=HostOutcome.SKIPPED, error=error, error_code="roll_stopped"
                )
            try:
                return await self._perform(transport, host, plan, facts)
            except SkepError:
                self._stopped_by = host.alias
                raise

    async def _perform(
        self, transport: Transport, host: HiveHost, plan: HostPlan, facts: HostFacts
    ) -> HostReport:
        on_step: OnStep = lambda step, what: self._on_host(host.alias, step, what)  # noqa: E731 - a curried callback
        try:
            steps = await perform(transport, plan, facts, on_step=on_step, clock=self._clock)
        except StepFailed as error:
            if error.step in {"service", "gate", "resume"} and facts.current_key:
                await self._put_back(transport, host, facts, error, on_step)
            raise
        return HostReport(
            alias=host.alias,
            status=self._outcome(plan),
            key=plan.key,
            steps=tuple(steps),
            workers=plan.workers_added,
            workers_removed=plan.workers_removed,
        )

    async def _put_back(
        self, transport: Transport, host: HiveHost, facts: HostFacts, error: StepFailed, on_step: OnStep
    ) -> None:
        """After a failed gate: switch to the version that served before, and say how that went."""
        back = planning.plan_put_back(host, facts)
        try:
            done = await perform(transport, back, facts, on_step=on_step, clock=self._clock)
        except SkepError as second:
            error.facts["steps"] = [
                *error.steps,
                StepReport(name="put-back", outcome="failed", detail=str(second)),
            ]
            error.facts["after"] = f"{facts.current_key} could not be put back: {second}"
        else:
            error.facts["steps"] = [*error.steps, *done]
            error.facts["after"] = f"{facts.current_key} was put back"

    def _outcome(self, plan: HostPlan) -> HostOutcome:
        if not plan.key:
            return HostOutcome.REMOVED
        if self._settings.options.rollback:
            return HostOutcome.ROLLED_BACK
        return HostOutcome.UPGRADED if plan.replaces and plan.replaces != plan.key else HostOutcome.INSTALLED

    def _failed(self, host: HiveHost, error: SkepError, began_s: float, retries: int) -> HostReport:
        is_unknown = isinstance(error, HostUnreachable)
        self._on_host(host.alias, "failed", str(error))
        return HostReport(
            alias=host.alias,
            status=HostOutcome.UNKNOWN if is_unknown else HostOutcome.FAILED,
            steps=tuple(error.facts.get("steps", ())),
            seconds=round(self._clock() - began_s, 4),
            retries=retries,
            error=_whole(error),
            error_code=error.code,
        )


def _whole(error: SkepError) -> str:
    """Return what is told of a failure: what, how the host was left where that is known, and its last lines."""
    after, tail = error.facts.get("after", ""), error.facts.get("log_tail", "")
    text = f"{error}; {after}" if after else str(error)
    return f"{text}\n{tail}" if tail and tail.strip() not in text else text


def token_of(host: HiveHost, base: Path) -> Token:
    """Return the queen's token of a host. Raises: ArtifactMissing."""
    if not host.queen_token_file:
        return NO_TOKEN
    path = base / Path(host.queen_token_file).expanduser()
    if not path.is_file():
        raise ArtifactMissing(f"{host.alias}: queen_token_file {path} is not there", path=str(path))
    return Token(path=str(path), digest=file_sha256(path))
