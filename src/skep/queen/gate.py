"""Who may use the gateway: the seam that a connection asks, and the anonymous side of it."""

import math
from typing import Protocol

import msgspec

from skep.queen.outcome import Outcome


class Visitor(msgspec.Struct, frozen=True):
    """Whom a token belongs to. `models` empty means any; `priority` is what its requests start with and may not exceed."""

    key_id: str = ""
    priority: int = 0
    models: frozenset[str] = frozenset()


ANONYMOUS = Visitor()


class Gate(Protocol):
    """Knows the API keys and counts what they use."""

    def visitor(self, token: str) -> Visitor:
        """Return whom a bearer token ("" when there is none) belongs to. Raises: InvalidKey."""
        ...

    def enter(self, visitor: Visitor, model: str) -> None:
        """Count a request in; `leave` must follow. Raises: KeyForbidden, RateLimited (and then nothing is counted)."""
        ...

    def leave(self, visitor: Visitor, outcome: Outcome) -> None:
        """Count a request out, with what it used."""
        ...


class OpenGate:
    """Lets everybody in: for loopback without keys."""

    def visitor(self, token: str) -> Visitor:  # noqa: ARG002 - the seam's signature
        """Return the anonymous visitor."""
        return ANONYMOUS

    def enter(self, visitor: Visitor, model: str) -> None:
        """Allow."""

    def leave(self, visitor: Visitor, outcome: Outcome) -> None:
        """Count nothing."""


def asked_priority(visitor: Visitor, header: bytes) -> int:
    """Return a request's priority: what its header asks for, at most what its key may; 0 when that is no number."""
    try:
        asked = int(header)
    except ValueError:
        return visitor.priority
    return int(min(asked, visitor.priority, math.inf)) if abs(asked) <= 1_000 else visitor.priority  # noqa: PLR2004
