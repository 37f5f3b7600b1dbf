"""The hive as a daemon: its parts in the order in which they start, and in the other order in which they end."""

import asyncio
import fcntl
import os
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import structlog

from skep.errors import SkepError
from skep.errors.hive import HiveRunning
from skep.hive.api import make_api
from skep.hive.core import Core
from skep.hive.declared import DeclaredStore, Source, Wish
from skep.hive.devices.inventory import Inventory
from skep.hive.finishing import Drainee, finish
from skep.hive.handoff import HandoffFolder, SpawnFolder
from skep.hive.launching import Running
from skep.hive.metrics import HiveMetrics
from skep.hive.node import Node
from skep.hive.pools import Pools
from skep.hive.recovery import Inheritance, recover
from skep.hive.registrar import Registrar
from skep.hive.settings import SHUTDOWN_GRACE_S, HiveSettings
from skep.process import reaper
from skep.store.sqlite import SqliteStore
from skep.web.auth import BearerAuth
from skep.web.client import describe_token, make_client
from skep.web.server import HttpServer

log = structlog.get_logger(__name__)

LOCK = "hive.lock"
DATABASE = "hive.sqlite"
ZOMBIES_S = 5.0
SERVER_GRACE_S = 0.2
WORKER_CONNECTIONS_MAX = 1000


class Hive:
    """A running hive. `url` is where its API answers."""

    def __init__(self, core: Core, url: str) -> None:
        self.core, self.url = core, url


@asynccontextmanager
async def running(settings: HiveSettings, listener: socket.socket) -> AsyncGenerator[Hive]:
    """Yield a hive, as `_running`; an error that stands alone in its group is raised as itself."""
    try:
        async with _running(settings, listener) as hive:
            yield hive
    except BaseExceptionGroup as group:
        alone: BaseException = group
        while isinstance(alone, BaseExceptionGroup) and len(alone.exceptions) == 1:
            alone = alone.exceptions[0]
        if isinstance(alone, SkepError):
            raise alone from None
        raise


@asynccontextmanager
async def _running(settings: HiveSettings, listener: socket.socket) -> AsyncGenerator[Hive]:
    """Yield a hive that serves on `listener`; on leaving, stop every worker within the shutdown's grace.

    Raises: HiveRunning, StoreUnavailable, StoreBroken, InvalidMask and what else is wrong with a declared pool.
    """
    for folder in (settings.runtime, settings.state):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    url = f"{settings.scheme}://{_url_host(settings.host)}:{listener.getsockname()[1]}"
    async with AsyncExitStack() as stack:
        stack.enter_context(_only_one(settings.runtime / LOCK))
        store = DeclaredStore(await stack.enter_async_context(SqliteStore(settings.state / DATABASE)))
        client = await stack.enter_async_context(
            make_client(total_s=None, connections_max=WORKER_CONNECTIONS_MAX)
        )
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        node = _node(settings, client, tasks)
        pools = Pools(node, store)
        node.inventory.on_change = pools.device_changed
        stack.push_async_callback(_stop_workers, node, pools)
        inherited = await _restore(node, pools, store)
        registrar = Registrar(node, pools, address=settings.address or url) if settings.queen else None
        core = Core(node, pools, registrar)
        app = BearerAuth(make_api(core), settings.token)  # type: ignore[arg-type]
        server = HttpServer(app, listen=[listener], grace_s=SERVER_GRACE_S, certificate=settings.certificate)
        await stack.enter_async_context(_background(node, pools, registrar))
        await stack.enter_async_context(server)
        log.info("hive_started", url=url, token_sha256=describe_token(settings.token), pools=len(pools.by_id))
        await _begin(node, pools, inherited)
        yield Hive(core, url)
        node.grace_s, node.stopping = min(settings.grace_s, SHUTDOWN_GRACE_S), True
    log.info("hive_stopped")


def _node(settings: HiveSettings, client: aiohttp.ClientSession, tasks: asyncio.TaskGroup) -> Node:
    return Node(
        settings=settings,
        inventory=Inventory.of_this_machine(settings.fake_devices),
        handoffs=HandoffFolder(settings.runtime),
        spawns=SpawnFolder(settings.runtime),
        client=client,
        metrics=HiveMetrics(settings.node_id),
        tasks=tasks,
        provisioning=asyncio.Semaphore(settings.provision_parallel),
        grace_s=settings.grace_s,
    )


async def _restore(node: Node, pools: Pools, store: DeclaredStore) -> Inheritance:
    """Bring back what was declared, and take over or end what still runs."""
    node.handoffs.open()
    node.spawns.open()
    await node.inventory.refresh()
    declared = await store.all()
    configured = {one.id for one in node.settings.pools}
    inheritance = await recover(node.settings, node.handoffs, node.spawns, declared)
    for outcome, left in (("malformed", inheritance.malformed), ("foreign", inheritance.foreign)):
        for _ in left:
            node.metrics.count(node.metrics.handoffs, outcome)
    for one in declared:
        if one.source is Source.CONFIG and one.spec.id not in configured:
            await store.remove(one.spec.id)
        else:
            pools.restore(one)
    for spec in node.settings.pools:
        generation = _generation(pools, spec.id)
        await pools.declare(spec, generation=generation, source=Source.CONFIG, wish=Wish.LOADED)
    for pool_id, past in (await store.pasts()).items():
        if pool_id in pools.by_id:
            pools.get(pool_id).judging.restore(past)
    await _end_unwanted(inheritance.adoptable, pools)
    return inheritance


async def _begin(node: Node, pools: Pools, inherited: Inheritance) -> None:
    """Load what is wanted, beginning with what was taken over, and go on with the drains that were under way."""
    left: dict[str, list[Drainee]] = {}
    for one in inherited.draining:
        left.setdefault(one.pool_id, []).append(one)
    for pool in pools.ordered():
        drained = left.pop(pool.id, [])
        for one in drained:
            pool.reserve(one.replica_id)
        if pool.declared.wish is Wish.LOADED:
            await pool.preload(inherited.adoptable.get(pool.id, {}))
            left[pool.id] = drained
        elif drained:
            pool.resume_drain(drained)
    for one in (one for several in left.values() for one in several):
        node.run(_finish(node, one), name=f"drain {one.pool_id}-{one.replica_id}")


async def _finish(node: Node, one: Drainee) -> None:
    await finish(node, one)


async def _end_unwanted(adoptable: dict[str, dict[str, Running]], pools: Pools) -> None:
    """Stop what runs for a pool that was changed or removed in the configuration since."""
    for pool_id, found in adoptable.items():
        pool = pools.by_id.get(pool_id)
        if pool is None or pool.plan is None or pool.declared.wish is not Wish.LOADED:
            for replica_id, running in list(found.items()):
                pools.node.handoffs.remove(pool_id, replica_id)
                await running.process.stop(pools.node.grace_s)
                pools.node.spawns.remove(pool_id, replica_id)
            found.clear()


def _generation(pools: Pools, pool_id: str) -> int:
    present = pools.by_id.get(pool_id)
    return present.declared.generation if present else 0


@asynccontextmanager
async def _background(node: Node, pools: Pools, registrar: Registrar | None) -> AsyncGenerator[None]:
    """Run what goes on beside the pools, and say goodbye to the queen at the end."""
    work = [node.inventory.watch(node.settings.discover_interval_s), pools.watch_idle(), _reap_zombies(pools)]
    if registrar is not None:
        work.append(registrar.run())
    running = [node.run(one, name="background") for one in work]
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        if registrar is not None:
            await registrar.leave()


async def _stop_workers(node: Node, pools: Pools) -> None:
    node.grace_s, node.stopping = min(node.settings.grace_s, SHUTDOWN_GRACE_S), True
    async with asyncio.TaskGroup() as ending:
        for pool in pools.ordered():
            ending.create_task(pool.aclose())
    await node.end_all()


async def _reap_zombies(pools: Pools) -> None:
    """Reap orphaned descendants for ever: as pid 1 of a container, or a subreaper, they come to us."""
    reaper.become_subreaper()
    while True:
        await asyncio.sleep(ZOMBIES_S)
        owned = {
            replica.running.process.pid
            for pool in pools.by_id.values()
            for replica in pool.replicas.values()
            if replica.running is not None
        }
        reaper.reap_zombies(except_for=owned)


@contextmanager
def _only_one(path: Path) -> Generator[None]:
    """Hold the runtime folder for this process; the kernel lets go when it dies. Raises: HiveRunning."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(descriptor, 32).decode("ascii", "replace").strip()
            raise HiveRunning(
                f"another hive (pid {pid}) runs on {path.parent}: stop it, or give this one a --runtime-dir",
                pid=pid,
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
