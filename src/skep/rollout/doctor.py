"""`ssh-doctor`: can each host be reached, logged into and used; each check told apart, with its next step."""

import asyncio
import socket
from collections.abc import Sequence

import msgspec

from skep.errors import SkepError
from skep.errors.rollout import HostKeyRefused, HostUnreachable, LoginRefused
from skep.rollout.apply import read_facts
from skep.rollout.facts import HostFacts
from skep.rollout.plan import NEEDED_TOOLS
from skep.rollout.transport import Connector
from skep.spec.host import HiveHost

TCP_S_MAX = 5.0


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One question to a host. `verdict`: ok, warn, fail or skipped."""

    name: str
    verdict: str
    details: str


class HostDiagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """All questions to one host, in order; after a failure the rest is skipped."""

    alias: str
    checks: tuple[Check, ...]

    @property
    def is_healthy(self) -> bool:
        """True when nothing failed."""
        return all(check.verdict != "fail" for check in self.checks)


async def diagnose(connector: Connector, hosts: Sequence[HiveHost], *, jobs: int = 16) -> list[HostDiagnosis]:
    """Ask every host, in parallel under a bound."""
    bound = asyncio.Semaphore(jobs)

    async def one(host: HiveHost) -> HostDiagnosis:
        async with bound:
            return HostDiagnosis(alias=host.alias, checks=tuple(await _checks(connector, host)))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(host)) for host in hosts]
    return [task.result() for task in tasks]


async def _checks(connector: Connector, host: HiveHost) -> list[Check]:
    found = [await _name(host)]
    try:
        transport = await connector.connect(host)
    except HostUnreachable as error:
        return [*found, Check(name="connect", verdict="fail", details=str(error))]
    except HostKeyRefused as error:
        return [*found, _ok("connect", ""), Check(name="host key", verdict="fail", details=str(error))]
    except LoginRefused as error:
        details = [_ok("connect", ""), _ok("host key", "")]
        return [*found, *details, Check(name="login", verdict="fail", details=str(error))]
    except (
        SkepError
    ) as error:  # A key file or an ~/.ssh/config that cannot be read: nothing was asked of the host yet.
        return [*found, Check(name="settings here", verdict="fail", details=str(error))]
    try:
        found += [
            _ok("connect", f"port {host.ssh_port}"),
            _ok("host key", "on record"),
            _ok("login", host.ssh_user or "the user of ~/.ssh/config, else your own name"),
        ]
        facts = await read_facts(transport, host.alias)
    except SkepError as error:
        return [*found, Check(name="facts", verdict="fail", details=str(error))]
    finally:
        await transport.aclose()
    return [*found, *_of_facts(facts)]


def _ok(name: str, details: str) -> Check:
    return Check(name=name, verdict="ok", details=details)


async def _name(host: HiveHost) -> Check:
    try:
        async with asyncio.timeout(TCP_S_MAX):
            found = await asyncio.get_running_loop().getaddrinfo(
                host.hostname, host.ssh_port, type=socket.SOCK_STREAM
            )
    except (OSError, TimeoutError) as error:
        # Not a failure by itself: ~/.ssh/config may know the name.
        return Check(name="name", verdict="warn", details=f"{host.hostname} is not in the DNS ({error})")
    return _ok("name", str(found[0][4][0]))


def _of_facts(facts: HostFacts) -> list[Check]:
    python = ", ".join(sorted(facts.pythons)) or "none with venv (sudo apt-get install python3-venv)"
    missing = sorted({tool for tool, _ in NEEDED_TOOLS} - facts.tools)
    service = "systemd --user" if facts.has_systemd_user else "own supervisor (no systemd user manager)"
    return [
        Check(
            name="home",
            verdict="ok" if facts.is_writable else "fail",
            details=f"{facts.home}, {facts.free_bytes >> 20} MiB free",
        ),
        Check(name="python", verdict="ok" if facts.pythons else "warn", details=python),
        Check(
            name="tools",
            verdict="fail" if missing else "ok",
            details=f"missing: {', '.join(missing)}" if missing else "",
        ),
        _ok("devices", ", ".join(sorted(facts.features))),
        _ok("service", service),
        _ok("installed", facts.current_key or "nothing yet"),
    ]
