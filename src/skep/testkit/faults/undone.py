"""The faults of one test: drawn from its seed, noted, and undone at its end whatever happens."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from skep.testkit.faults import process
from skep.testkit.faults.proxy import FaultProxy
from skep.testkit.faults.stream import parse_fault
from skep.testkit.portal import Portal


class Faults:
    """What a test breaks. `done` tells, in order, what was broken."""

    def __init__(self, seed: int, portal: Portal) -> None:
        self.seed, self.done = seed, list[str]()
        self._portal, self._undo = portal, ExitStack()

    def choose(self, pids: Sequence[int]) -> int:
        """Choose a victim, the same for the same seed. Raises: InvalidInput when there is none."""
        return process.choose(pids, seed=self.seed)

    def kill(self, pid: int) -> None:
        """SIGKILL a process; nothing undoes this."""
        self.done.append(f"kill {pid}")
        process.kill(pid)

    def hang(self, pid: int) -> None:
        """Stop a process: it is there, and answers nothing. It goes on when the test ends."""
        self._enter(f"hang {pid}", process.stopped(pid))

    def starve(self, pid: int) -> None:
        """Let a process open no further file until the test ends."""
        self._enter(f"starve {pid}", process.descriptors_exhausted(pid))

    def proxy(self, url: str, *faults: str, skip: int = 0) -> FaultProxy:
        """Put a proxy before a server, with faults such as `cut-at=100..900`. Raises: InvalidInput that lists them."""
        split = urlsplit(url)
        parsed = [parse_fault(each) for each in faults]
        found = FaultProxy(split.hostname or "127.0.0.1", split.port or 80, parsed, seed=self.seed, skip=skip)
        self.done.append(f"proxy {', '.join(faults)}")
        self._portal.call(found.start())
        self._undo.callback(lambda: self._portal.call(found.aclose()))
        return found

    def _enter(self, what: str, fault: AbstractContextManager[None]) -> None:
        self.done.append(what)
        self._undo.enter_context(fault)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()
