"""Whether a native object may still be used: open, closed, spoiled, or left behind by a fork.

Threads of the parent do not exist in a forked child, and a decode there hangs: a fork marks every open object, so that
the child gets a typed error (start processes with spawn instead).
"""

import os
import threading
import warnings
import weakref
from enum import StrEnum, auto
from typing import Final, Self

from skep.errors import SkepError
from skep.errors.runtime import Closed, DecodeFailed, WrongThread


class NativeState(StrEnum):
    """The life of a native object."""

    OPEN = auto()
    SPOILED = auto()
    FORKED = auto()
    CLOSED = auto()


_live: "weakref.WeakSet[Native]" = weakref.WeakSet()


class Native:
    """Something with a C handle. Subclasses release it in `_release`, which runs once and never in a forked child."""

    _noun: str = "object"

    def __init__(self) -> None:
        self._state: NativeState = NativeState.OPEN
        self._why = ""
        _live.add(self)

    @property
    def is_open(self) -> bool:
        """True until it is closed, spoiled or left behind by a fork."""
        return self._state is NativeState.OPEN

    def close(self) -> None:
        """Free it; closing twice is fine."""
        if self._state in {NativeState.OPEN, NativeState.SPOILED}:
            self._before_close()
            self._state = NativeState.CLOSED
            _live.discard(self)
            self._release()

    def _refusal(self) -> SkepError:
        """Return why it cannot be used now."""
        match self._state:
            case NativeState.SPOILED:
                return DecodeFailed(f"this {self._noun} failed before ({self._why}); close it", why=self._why)
            case NativeState.FORKED:
                return Closed(
                    f"this {self._noun} was made before a fork; load it in the child (spawn, never fork)"
                )
            case _:
                return Closed(f"this {self._noun} is closed")

    def _before_close(self) -> None:
        """Raise when closing is not allowed now."""

    def _release(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_state", NativeState.CLOSED) in {NativeState.OPEN, NativeState.SPOILED}:
            warnings.warn(f"a {self._noun} was never closed", ResourceWarning, source=self, stacklevel=2)
            self._state = NativeState.CLOSED
            self._release()


class Owner:
    """The thread that an object belongs to: the first one that checks in."""

    __slots__ = ("ident",)

    def __init__(self) -> None:
        self.ident: int | None = None

    def refusal(self, noun: str) -> WrongThread:
        """Return the error for a call from another thread."""
        here = threading.get_ident()
        return WrongThread(
            f"this {noun} belongs to thread {self.ident}, not {here}", owner=self.ident, caller=here
        )


def _abandon_after_fork() -> None:
    for native in list(_live):
        native._state = NativeState.FORKED  # noqa: SLF001 - the one place that may


_REGISTER: Final = getattr(os, "register_at_fork", None)
if _REGISTER is not None:
    _REGISTER(after_in_child=_abandon_after_fork)
