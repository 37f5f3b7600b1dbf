"""From a spawned process to a replica that may serve: loaded, proved to be ours, and able to produce a token."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from skep.errors.hive import NotOurs, StartFailed, StartTimedOut
from skep.hive.adapter.base import EngineAdapter
from skep.hive.launching import Running, read_report
from skep.hive.node import Node
from skep.hive.plan import Plan
from skep.hive.steps import Step, reached
from skep.policy.health import Answer
from skep.policy.starting import deadline_s, limit_s
from skep.process.effort import Effort
from skep.process.owned import OwnedProcess

T = TypeVar("T")

LOOK_S = 0.05
LOOK_S_MAX = 1.0
GROWTH = 1.5
LAST_WORDS_S = 1.0
ADOPTED_S = 10.0
"""How long a worker that was ready before may take to prove itself again."""


async def become_ready(
    running: Running, plan: Plan, node: Node, adapter: EngineAdapter, *, on_progress: Callable[[float], None]
) -> None:
    """Return when the worker is resident, ours, and has produced a token.

    The limit grows with the model, and is moved on while the load makes progress.
    Raises: StartTimedOut, StartFailed, NotOurs, CannotGenerate, ReportMalformed.
    """
    began = node.clock()
    best = [0.0]
    loop = asyncio.get_running_loop()
    is_adopted = running.report is None and adapter.takes_socket
    first_s = ADOPTED_S if is_adopted else limit_s(plan.model_bytes, limits=node.settings.start)
    try:
        async with asyncio.timeout(first_s) as limit:

            def moved() -> None:
                until = deadline_s(
                    started_s=began,
                    progressed_s=node.clock(),
                    model_bytes=plan.model_bytes,
                    limits=node.settings.start,
                )
                limit.reschedule(loop.time() + until - node.clock())

            def progressed(share: float) -> None:
                if share > best[0]:
                    best[0] = share
                    moved()
                on_progress(share)

            last_words_s = LAST_WORDS_S if running.report else 0.0
            work = _prepare(running, adapter, progressed, on_effort=None if is_adopted else moved)
            await while_running(running.process, work, last_words_s=last_words_s)
    except TimeoutError:
        spent = node.clock() - began
        raise StartTimedOut(
            f"the worker was not ready after {spent:.0f} s (loaded: {best[0]:.0%})",
            limit_s=spent,
            progress=best[0],
        ) from None


async def _prepare(
    running: Running,
    adapter: EngineAdapter,
    on_progress: Callable[[float], None],
    *,
    on_effort: Callable[[], None] | None,
) -> None:
    """Read, look, prove. `on_effort` is called while a program that reports nothing is seen to work."""
    await read_report(running, on_progress=on_progress)
    pause_s = LOOK_S
    effort = None if running.report or on_effort is None else Effort(running.endpoint.pgid)
    while True:
        look = await adapter.look(running.endpoint)
        if look.answer is Answer.FOREIGN:
            raise NotOurs(f"{running.endpoint.url}: {look.detail}", url=running.endpoint.url)
        if look.answer is Answer.DEVICE_ERROR:
            raise StartFailed(f"the worker reports {look.detail}", cause="device_error", log_tail="")
        if look.answer is Answer.WELL and look.resident:
            break
        if effort and on_effort and effort.grew():
            on_effort()
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * GROWTH, LOOK_S_MAX)
    await adapter.prove(running.endpoint)
    reached(Step.PROVED)


async def while_running(process: OwnedProcess, work: Coroutine[Any, Any, T], *, last_words_s: float) -> T:
    """Return what `work` returns, unless the process ends first and `last_words_s` pass. Raises: StartFailed, and what `work` raises."""
    task = asyncio.ensure_future(work)
    ended = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait({task, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done() and ended.done():
            # The report may still hold why: give the reader a moment to come to the end of the pipe.
            await asyncio.wait({task}, timeout=last_words_s)
        if task.done():
            return task.result()
        raise StartFailed(
            f"the worker ended with {ended.result()} before it was ready", cause="", log_tail=""
        )
    finally:
        for one in (task, ended):
            one.cancel()
        await asyncio.gather(task, ended, return_exceptions=True)
