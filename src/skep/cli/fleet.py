"""A whole fleet in one process tree: a queen and a hive as children of ours, and a guard that outlives us.

The guard ends what is left when we are killed, also with SIGKILL; the children watch the same lifeline by themselves.
"""

import asyncio
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from skep.errors import SkepError, Timeout, Unavailable
from skep.process.child import Child, ChildSpec, spawn
from skep.process.guard import Guard
from skep.process.report import ReportPipe
from skep.web.client import make_client

FLEET_VARIABLE = "SKEP_FLEET"  # Marks everything that this fleet starts.
DAEMON_READY_S_MAX = 30.0
POOL_READY_S_MAX = 3600.0
SILENT_S_MAX = 30.0
POLL_S = 0.05
STOP_GRACE_S = 4.0
LOG_TAIL_LINES = 5


class PoolWish(msgspec.Struct, frozen=True, kw_only=True):
    """One pool to serve: the model's name, its file or reference, and the pool's settings."""

    id: str
    name: str
    model: str
    settings: dict[str, Any]


class FleetOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `skep up` was asked for. Port 0 picks a free one."""

    pools: tuple[PoolWish, ...]
    gateway_port: int
    admin_port: int
    hive_port: int
    runtime: Path


class DaemonFailed(SkepError):
    """A daemon of the fleet ended; its last words are in the message."""

    code = "daemon_failed"


class PoolFailed(SkepError):
    """A pool cannot serve; its cause is in the message."""

    code = "pool_failed"


class Fleet:
    """The running parts. `gateway`, `admin` and `hive` are URLs."""

    def __init__(self, folder: Path, client: aiohttp.ClientSession) -> None:
        self.folder, self._client = folder, client
        self.gateway = self.admin = self.hive = ""
        self.children: dict[str, Child] = {}

    async def pools(self) -> list[dict[str, Any]]:
        """Return the hive's pools as its API tells them. Raises: Unavailable when it does not answer."""
        found = await self._get(f"{self.hive}/v2/pools")
        return list(found["pools"] if isinstance(found, dict) else found)

    async def _get(self, url: str) -> Any:
        try:
            async with self._client.get(url) as answer:
                answer.raise_for_status()
                return await answer.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"{url} does not answer ({error or type(error).__name__})", url=url) from error

    async def until_ready(
        self, *, on_state: Callable[[str, str], None], deadline_s: float = POOL_READY_S_MAX
    ) -> None:
        """Wait until every pool serves through the gateway.

        Raises: DaemonFailed, PoolFailed with its cause, Unavailable when a daemon is silent for `SILENT_S_MAX`, Timeout.
        """
        told: dict[str, str] = {}
        heard_s = began_s = time.monotonic()
        while True:
            self.check_alive()
            try:
                if await self._all_ready(told, on_state):
                    return
                heard_s = time.monotonic()
            except Unavailable:
                if time.monotonic() - heard_s > SILENT_S_MAX:
                    raise
            if time.monotonic() - began_s > deadline_s:
                raise Timeout(f"the pools were not ready within {deadline_s:g} s: {told}")
            await asyncio.sleep(POLL_S)

    async def _all_ready(self, told: dict[str, str], on_state: Callable[[str, str], None]) -> bool:
        pools = await self.pools()
        for pool in pools:
            name, state = pool["pool_id"], pool["state"]
            if told.get(name) != state:
                told[name] = state
                on_state(name, state)
            if state == "unready" and (cause := pool.get("last_error")):
                message = cause.get("message") if isinstance(cause, dict) else cause
                raise PoolFailed(f"pool {name} cannot serve: {message}", pool_id=name)
        wanted = {pool.get("name") or pool["model"] for pool in pools}
        served = {model["id"] for model in (await self._get(f"{self.gateway}/v1/models"))["data"]}
        return all(pool["state"] == "ready" for pool in pools) and wanted <= served

    def check_alive(self) -> None:
        """Raises: DaemonFailed when a daemon ended."""
        for name, child in self.children.items():
            if child.exit is not None:
                raise DaemonFailed(f"the {name} ended ({child.exit}): {self.last_words(name)}", daemon=name)

    async def until_one_ends(self) -> None:
        """Wait until a daemon ends by itself. Raises: DaemonFailed, always."""
        waits = [asyncio.create_task(child.wait()) for child in self.children.values()]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        self.check_alive()

    async def stop(self) -> None:
        """Stop the daemons side by side, so that together they need no longer than one: `STOP_GRACE_S`, then SIGKILL."""
        async with asyncio.TaskGroup() as ending:
            for child in self.children.values():
                ending.create_task(_stop(child))

    def last_words(self, name: str) -> str:
        """Return the end of a daemon's log: its error line when it left one."""
        log = self.folder / f"{name}.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        errors = [line.removeprefix("skep: ") for line in lines if line.startswith("skep: ")]
        return errors[-1] if errors else " / ".join(lines[-LOG_TAIL_LINES:]) or "it said nothing"


async def _stop(child: Child) -> None:
    await child.stop(STOP_GRACE_S)
    await child.aclose()


@asynccontextmanager
async def running(options: FleetOptions) -> AsyncGenerator[Fleet]:
    """Yield a fleet whose daemons answer; on leaving, stop everything within 5 s and remove its folder.

    Raises: DaemonFailed, PortInUse (through the daemon's last words), Timeout.
    """
    folder = options.runtime / f"up-{os.getpid()}-{secrets.token_hex(3)}"
    folder.mkdir(parents=True, mode=0o700)
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        guard = stack.enter_context(Guard())
        guard.folder(folder)
        guard.mark(FLEET_VARIABLE, folder.name)
        lifeline, held = os.pipe()
        stack.callback(os.close, lifeline)
        stack.callback(os.close, held)
        fleet = Fleet(folder, await stack.enter_async_context(make_client(total_s=10.0)))
        stack.push_async_callback(fleet.stop)

        async def start(name: str, *argv: str) -> dict[str, Any]:
            return await _start(fleet, guard, name, argv, lifeline)

        queen = await start(
            "queen",
            "--bind",
            f"127.0.0.1:{options.gateway_port}",
            "--admin-bind",
            f"127.0.0.1:{options.admin_port}",
            "--store",
            f"sqlite:{folder / 'queen.db'}",
        )
        fleet.gateway, fleet.admin = queen["gateway"], queen["admin"]
        config = folder / "skep.toml"
        config.write_text(hive_config(options, admin=fleet.admin, runtime=folder / "hive"))
        hive = await start("hive", "--config", str(config))
        fleet.hive = hive["url"]
        yield fleet


async def _start(fleet: Fleet, guard: Guard, name: str, argv: Sequence[str], lifeline: int) -> dict[str, Any]:
    """Start a daemon and return what it reports when it is ready."""
    async with ReportPipe.open() as pipe:
        fds = ("--report-fd", str(pipe.write_fd), "--exit-with-fd", str(lifeline))
        child = await spawn(
            ChildSpec(
                argv=(sys.executable, "-m", "skep.cli.main", name, *argv, *fds),
                env={**os.environ, FLEET_VARIABLE: fleet.folder.name},
                log_path=fleet.folder / f"{name}.log",
                pass_fds=(pipe.write_fd, lifeline),
            )
        )
        pipe.close_write()
        guard.watch(child.pid, child.started_at)
        fleet.children[name] = child
        try:
            async with asyncio.timeout(DAEMON_READY_S_MAX):
                async for line in pipe.lines():
                    report: dict[str, Any] = json.loads(line)
                    if report.get("event") == "ready":
                        return report
                await child.wait()
        except TimeoutError:
            raise Timeout(
                f"the {name} did not start within {DAEMON_READY_S_MAX:g} s: {fleet.last_words(name)}"
            ) from None
    raise DaemonFailed(f"the {name} did not start: {fleet.last_words(name)}", daemon=name)


def hive_config(options: FleetOptions, *, admin: str, runtime: Path) -> str:
    """Return the skep.toml of this fleet's hive. A JSON string, number or boolean is TOML as well."""
    lines = [
        "[hive_daemon]",
        f"bind = {json.dumps(f'127.0.0.1:{options.hive_port}')}",
        f"queen = {json.dumps(admin)}",
        f"runtime_dir = {json.dumps(str(runtime))}",
    ]
    for pool in options.pools:
        lines += ["[[model]]", f"name = {json.dumps(pool.name)}", f"ref = {json.dumps(pool.model)}"]
        lines += ["[[pool]]", f"id = {json.dumps(pool.id)}", f"model = {json.dumps(pool.name)}"]
        lines += [f"{name} = {json.dumps(value)}" for name, value in pool.settings.items()]
    return "\n".join(lines) + "\n"


def elapsed(since_s: float) -> str:
    """Return how long something took, for people."""
    return f"{time.monotonic() - since_s:.1f} s"
