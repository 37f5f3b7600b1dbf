"""A process group as one thing: who is in it, signalling it, waiting until nobody is left."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

from skep.process.identity import Stat, all_stats, read_stat

_POLL_S = 0.01


def members(pgid: int) -> list[Stat]:
    """Return the living processes of a group that was made by `setsid` (group and session are one number)."""
    return [one for one in all_stats() if one.group == pgid and one.session == pgid and not one.is_dead]


def send(pgid: int, number: int) -> None:
    """Send a signal to every member; nobody left is fine."""
    with suppress(ProcessLookupError):
        os.killpg(pgid, number)


def kill_leftovers(pgid: int) -> None:
    """Kill what is left of a group whose leader is gone."""
    if members(pgid):
        send(pgid, signal.SIGKILL)


async def wait_empty(pgid: int, *, within_s: float) -> list[Stat]:
    """Wait until the group has no living member; return those that are left when the time is over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while members(pgid):  # noqa: ASYNC110 - the kernel tells nobody when a group is empty
                await asyncio.sleep(_POLL_S)
    return members(pgid)


def descendants(pid: int) -> list[Stat]:
    """Return the living children of `pid`, their children, and so on."""
    children: dict[int, list[Stat]] = {}
    for stat in all_stats():
        children.setdefault(stat.parent, []).append(stat)
    found, open_ = [], [pid]
    while open_:
        below = children.get(open_.pop(), [])
        found += [one for one in below if not one.is_dead]
        open_ += [one.pid for one in below]
    return found


def marked(variable: str, value: str) -> list[Stat]:
    """Return the living processes that were started with `variable=value` in their environment.

    Children inherit the mark, so it also finds those that left the group. Processes of other users are not seen.
    """
    wanted = f"{variable}={value}".encode()
    found = []
    for stat in all_stats():
        with suppress(OSError):
            if wanted in Path(f"/proc/{stat.pid}/environ").read_bytes().split(b"\0"):
                found.append(stat)
    return [one for one in found if not one.is_dead]


def kill_each(processes: list[Stat]) -> int:
    """SIGKILL each process that is still the one that was seen; return how many got it."""
    killed = 0
    for stat in processes:
        try:
            descriptor = os.pidfd_open(stat.pid)
        except ProcessLookupError:
            continue
        try:
            now = read_stat(stat.pid)
            if now is not None and now.started_at == stat.started_at:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                killed += 1
        except ProcessLookupError:
            continue
        finally:
            os.close(descriptor)
    return killed
