"""Where the trials of a sweep run: here, or in processes; a cluster engine later fits the same seam."""

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol, TypeVar

from skep.errors import Unavailable

T = TypeVar("T")
R = TypeVar("R")
QUEUED_PER_PROCESS = 2


class Placement(Protocol):
    """Runs a function over items; the order in which results come is not promised, the results are."""

    def run(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield each result as it comes. Raises: what the function raises; Unavailable where a worker was lost."""
        ...


class Here:
    """In this process, one after the other."""

    def run(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield the results in the order of the items."""
        return map(function, items)


class Processes:
    """In `count` processes of this machine; they end with it, also when it is killed."""

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"processes: 1 or more, not {count}")
        self._count = count

    def run(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield the results as they come; at most a few items a process are queued at once."""
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(self._count, mp_context=context, initializer=_end_with_parent)
        rest, pending = iter(items), set[Future[R]]()
        try:
            while True:
                for item in rest:
                    pending.add(pool.submit(function, item))
                    if len(pending) >= self._count * QUEUED_PER_PROCESS:
                        break
                if not pending:
                    return
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            raise Unavailable(
                "a process of the sweep was killed; run the same command again to go on"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def place(processes: int) -> Placement:
    """Return the placement for so many processes; one is this process."""
    return Here() if processes <= 1 else Processes(processes)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="skep-arena-parent", daemon=True).start()
