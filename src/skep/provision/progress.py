"""How long work tells what it is doing: one small message, for a bar or a log."""

from collections.abc import Callable

import msgspec


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """A moment of a step. `done` and `total` are bytes where the step knows them, else 0."""

    step: str
    done: int = 0
    total: int = 0
    detail: str = ""


OnProgress = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Tell nobody."""
