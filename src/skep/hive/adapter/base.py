"""The seam between a replica and the program that serves it: one adapter a kind of engine."""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from skep.hive.endpoint import Drained, Endpoint, Look
from skep.spec.device import DeviceMask
from skep.spec.pool import PoolSpec

PROBE_S_MAX, PROBE_S_MIN = 5.0, 1.0
PROOF_S_MAX = 60.0
PROOF_PROMPT = "Hello"


def probe_limit_s(interval_s: float) -> float:
    """Return how long one probe may take: as long as the interval, within reason."""
    return min(max(interval_s, PROBE_S_MIN), PROBE_S_MAX)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to start. `listen_fd` and `report_fd` are for programs that inherit them, `port` for those that do not."""

    pool: PoolSpec
    replica_id: str
    mask: DeviceMask
    program: str
    model_path: str
    model_name: str
    nonce: str
    token: str
    host: str
    port: int
    listen_fd: int | None = None
    report_fd: int | None = None
    chat_template: str | None = None
    aliases: tuple[str, ...] = ()


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """A command line, and what its environment has beside ours."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


class EngineAdapter(Protocol):
    """One kind of engine. All that it says of a process goes through its HTTP port or the kernel, never through trust."""

    abilities: frozenset[str]
    takes_socket: bool

    def launch(self, order: Order) -> Launch:
        """Return how to start it inside its mask. Secrets go into the environment, never onto the command line."""
        ...

    async def look(self, endpoint: Endpoint) -> Look:
        """Probe it, and check that the answer is ours. Never raises for what the other side does: that is an answer."""
        ...

    async def prove(self, endpoint: Endpoint) -> None:
        """Make it produce one token, or one vector. Raises: CannotGenerate, NotOurs."""
        ...

    async def drain(self, endpoint: Endpoint, *, deadline_s: float) -> Drained:
        """Let running jobs end until the deadline, cancel what is left, return. Raises: PeerFailed."""
        ...
