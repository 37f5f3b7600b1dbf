"""What every command prints with: results to stdout, progress and logs to stderr, colours that turn off."""

import os
import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from skep.provision.progress import Progress as Moment

if TYPE_CHECKING:  # Looked up when something is drawn: a script that asks for JSON does not wait for it.
    from rich.console import Console

T = TypeVar("T")


def out() -> "Console":
    """Return the console for results; plain when it is not a terminal, or when NO_COLOR is set."""
    from rich.console import Console

    return Console(
        file=sys.stdout, no_color=bool(os.environ.get("NO_COLOR")), highlight=False, soft_wrap=True
    )


def err() -> "Console":
    """Return the console for progress and notes."""
    from rich.console import Console

    return Console(
        file=sys.stderr, no_color=bool(os.environ.get("NO_COLOR")), highlight=False, soft_wrap=True
    )


def print_json(value: Any) -> None:
    """Print a value as indented JSON, for scripts."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run an async command; Ctrl-C ends it with exit code 130."""
    import asyncio

    return asyncio.run(main())


def telling(tell: Callable[[str, int, int, str], None]) -> Callable[[Moment], None]:
    """Return what hands a provisioning step's progress to a `bytes_bar`."""
    return lambda moment: tell(moment.step, moment.done, moment.total, moment.detail)


@contextmanager
def bytes_bar(*, quiet: bool = False) -> Generator[Callable[[str, int, int, str], None]]:
    """Yield `tell(step, done, total, detail)`, shown as a bar on a terminal and as a line a step elsewhere."""
    console = err()
    if quiet:
        yield lambda *_: None
        return
    if not console.is_terminal:
        seen: set[tuple[str, str]] = set()

        def plain(step: str, done: int, total: int, detail: str) -> None:  # noqa: ARG001 - the bar's signature
            if (step, detail) not in seen:
                seen.add((step, detail))
                console.print(f"{step}: {detail}", markup=False)

        yield plain
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("…", total=None)

        def tell(step: str, done: int, total: int, detail: str) -> None:
            bar.update(task, description=f"{step} {detail}"[:60], completed=done, total=total or None)

        yield tell
