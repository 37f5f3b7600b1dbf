"""What every part of a hive is given: one struct of services, so that nothing is global."""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from skep.hive.adapter.base import EngineAdapter
from skep.hive.adapter.choose import adapter_for
from skep.hive.devices.inventory import Inventory
from skep.hive.handoff import HandoffFolder, SpawnFolder
from skep.hive.metrics import HiveMetrics
from skep.hive.settings import HiveSettings
from skep.spec.engine import EngineSpec

STARTS_MAX = max(8, 2 * (os.cpu_count() or 1))
"""How many workers start at a time: more would only slow each other down, past their time limits."""


@dataclass(kw_only=True)
class Node:
    """The services. `tasks` runs for as long as the hive does; `grace_s` shrinks when it stops.

    `clock` is monotonic, for decisions; `wall` is for people and files. `changed` is told each time that the queen
    should know something.
    """

    settings: HiveSettings
    inventory: Inventory
    handoffs: HandoffFolder
    spawns: SpawnFolder
    client: aiohttp.ClientSession
    metrics: HiveMetrics
    tasks: asyncio.TaskGroup
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    rng: random.Random = field(default_factory=random.Random)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    provisioning: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))
    starting: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(STARTS_MAX))
    fitting: asyncio.Lock = field(default_factory=asyncio.Lock)
    grace_s: float = 5.0
    stopping: bool = False
    running: set[asyncio.Task[None]] = field(default_factory=set)

    def adapter(self, engine: EngineSpec, program: str = "") -> EngineAdapter:
        """Return how an engine is spoken to; `program` is needed to launch it."""
        interval_s = self.settings.probe_interval_s
        return adapter_for(engine, self.client, program=program, probe_interval_s=interval_s)

    def run(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Run a piece of work until it ends, or the hive does."""
        task = self.tasks.create_task(work, name=name)
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        return task

    async def end_all(self) -> None:
        """Cancel everything that still runs, and wait until it has cleaned up."""
        while left := [one for one in self.running if one is not asyncio.current_task()]:
            for one in left:
                one.cancel()
            await asyncio.wait(left)
