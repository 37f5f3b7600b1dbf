"""The server as a process of ours, where `--command` says how to start it."""

import asyncio
import os
import re
import secrets
import shlex
import signal
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import psutil

from skep.errors import InvalidConfig
from skep.process import group
from skep.process.child import Child, ChildSpec, spawn
from skep.process.socket import bind_listener
from skep.testkit.check.verdict import Broken
from skep.web.client import make_client

MARK = "SKEP_CHECK_MARK"
START_S_MAX = 300.0
STOP_S_MAX = 15.0
POLL_S = 0.05
PORT_FIELD = "{port}"
BODY_BYTES_MAX = 65_536
_OK, _NO_ROUTE = 200, frozenset({404, 405, 501})
_NOT_YET = re.compile(rb'"status"\s*:\s*"(loading|starting|initializing|unready|not_ready)', re.IGNORECASE)
"""Some answer 200 as soon as they run, and say in words that they are not ready."""


class ServerProcess:
    """Starts and ends the server; what it starts in turn is known by a mark in the environment."""

    def __init__(self, command: str, log: Path, *, url: str = "") -> None:
        self.argv: Sequence[str] = shlex.split(command)
        if not self.argv:
            raise InvalidConfig("--command is empty: give what starts the server, with {port}")
        if not url and PORT_FIELD not in command:
            raise InvalidConfig("--command needs {port}, or a URL beside it")
        self.log, self.mark = log, secrets.token_hex(8)
        self.url = url
        self.child: Child | None = None

    async def start(self) -> None:
        """Start it on a free port, and wait until it says that it is well. Raises: Broken."""
        argv = list(self.argv)
        if any(PORT_FIELD in part for part in argv):
            with bind_listener("127.0.0.1") as listener:
                port = listener.getsockname()[1]
            argv = [part.replace(PORT_FIELD, str(port)) for part in argv]
            self.url = f"http://127.0.0.1:{port}"
        env = {**os.environ, MARK: self.mark}
        self.child = await spawn(ChildSpec(argv=tuple(argv), env=env, log_path=self.log))
        await self._until_ready()

    async def _until_ready(self) -> None:
        assert self.child is not None
        began = time.monotonic()
        async with make_client(total_s=5.0) as client:
            while time.monotonic() - began < START_S_MAX:
                if self.child.exit is not None:
                    raise Broken(f"the server ended with {self.child.exit} before it was ready", self.tail())
                if await _is_well(client, self.url):
                    return
                await asyncio.sleep(POLL_S)
        raise Broken(f"the server was not ready after {START_S_MAX:g} s", self.tail())

    def tail(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-800:] if self.log.exists() else ""

    def living(self) -> list[int]:
        """Return the processes that it is, and that it started."""
        return [one.pid for one in group.marked(MARK, self.mark)]

    def rss_bytes(self) -> int:
        """Return the memory of all of them."""
        return sum(psutil.Process(pid).memory_info().rss for pid in self.living())

    async def signal_and_wait(self, number: int, *, within_s: float = STOP_S_MAX) -> bool:
        """Signal its first process; True when that one ended in time."""
        assert self.child is not None
        with suppress(ProcessLookupError):
            os.kill(self.child.pid, number)
        try:
            async with asyncio.timeout(within_s):
                await self.child.wait()
        except TimeoutError:
            return False
        return True

    async def gone(self, *, within_s: float) -> list[int]:
        """Wait until nothing of it lives; return what is left when the time is over."""
        deadline = time.monotonic() + within_s
        while (left := self.living()) and time.monotonic() < deadline:  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(POLL_S)
        return left

    async def aclose(self) -> None:
        """End all of it."""
        if self.child is not None:
            await self.signal_and_wait(signal.SIGTERM)
            group.kill_each(group.marked(MARK, self.mark))
            await self.child.wait()


async def _is_well(client: aiohttp.ClientSession, url: str) -> bool:
    """Ask its health; only a server that has no such route is judged by its list of models."""
    try:
        async with client.get(f"{url}/health") as reply:
            if reply.status not in _NO_ROUTE:
                return reply.status == _OK and not _NOT_YET.search(await reply.content.read(BODY_BYTES_MAX))
        async with client.get(f"{url}/v1/models") as reply:
            return reply.status == _OK
    except (aiohttp.ClientError, TimeoutError):
        return False  # It does not listen yet.


@asynccontextmanager
async def running(command: str, log: Path, *, url: str = "") -> AsyncGenerator[ServerProcess]:
    """Yield the server, started; nothing of it is left afterwards."""
    server = ServerProcess(command, log, url=url)
    try:
        await server.start()
        yield server
    finally:
        await server.aclose()
