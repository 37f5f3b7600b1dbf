"""Where a replica answers, and what it said of its load the last time."""

import msgspec

from skep.policy.health import Answer


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach one process, and how to know that it is the one. `token` "" = it asks for none."""

    url: str
    port: int
    nonce: str
    pgid: int
    model: str
    slots: int = 1
    token: str = ""

    def __repr__(self) -> str:
        """Return it without its token."""
        return f"Endpoint({self.url}, pgid={self.pgid})"


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How busy a replica is. `work_total` grows with whatever it does; `kv_used` is a share 0..1."""

    slots_total: int = 0
    slots_free: int = 0
    queue_depth: int = 0
    kv_used: float = 0.0
    work_total: int = 0
    is_known: bool = True

    @property
    def is_idle(self) -> bool:
        """True when nothing runs and nothing waits; what does not tell is never thought idle."""
        return self.is_known and self.slots_free >= self.slots_total and not self.queue_depth


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """One probe: what came back, what it says of the load, and a word for the log when it was not well."""

    answer: Answer
    load: Load | None = None
    resident: bool = True
    detail: str = ""


class Drained(msgspec.Struct, frozen=True, kw_only=True):
    """How a drain went: `force_stopped` when the deadline came first."""

    force_stopped: bool = False
    jobs_cancelled: int = 0
    duration_ms: int = 0
