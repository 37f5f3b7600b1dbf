"""Which replica gets a request: state in, verdict out, with the reasons.

The gateway and the arena import this same code. In order:

1. Full replicas are left out; the highest pool priority with room wins, then replicas whose node holds the weights.
2. A session key, else a prefix key, ranks them by weighted rendezvous hashing (Thaler and Ravishankar, 1998). The
   first that stays inside the bounded load (Mirrokni, Thorup, Zadimoghaddam, 2016) wins: a popular prefix spills
   over to the next replica of its own order instead of melting one.
3. Without a key, the less loaded of two drawn at random wins (Mitzenmacher's power of two choices): nearly as even
   as reading every replica, and immune to everybody choosing the same "least loaded" from one stale report.

Randomness is the caller's: `salt` is any integer, and equal input gives an equal verdict.
"""

import math
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b

import msgspec

from skep.errors import InvalidInput

AHEAD = 1
"""Requests that a replica may hold above its slots, so that a freed slot never waits for a round trip."""

SLACK = 1.25
"""How far above the mean load a key may push its replica before the next one of its order is taken."""

BLOCK_BYTES, BLOCKS_MAX = 256, 4
"""The prompt's leading blocks that make its prefix key: at most four, and none when the first is not full."""

_MASK64 = (1 << 64) - 1


class ReplicaLoad(msgspec.Struct, frozen=True, kw_only=True):
    """One replica that is ready for work. `busy` counts what runs and waits there, as far as the caller knows."""

    replica_id: str
    pool_id: str = ""
    node_id: str = ""
    slots_total: int
    busy: int
    priority: int = 0
    is_local: bool = True

    @property
    def load(self) -> float:
        """Requests per slot."""
        return self.busy / max(self.slots_total, 1)


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What placement knows about a request. A key of 0 is none."""

    session_key: int = 0
    prefix_key: int = 0
    excluded: frozenset[str] = frozenset()
    salt: int = 0


class Rule(StrEnum):
    """Why a replica was chosen, or none was."""

    ONLY = "only"
    SESSION = "session"
    PREFIX = "prefix"
    TWO_CHOICES = "two_choices"
    SATURATED = "saturated"
    NO_REPLICA = "no_replica"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The chosen replica (None when all are full, or there is none) and the order that led to it."""

    replica_id: str | None
    rule: Rule
    considered: tuple[ReplicaLoad, ...] = ()

    def why(self) -> str:
        """Return one line for people and for the `x-skep-why` header."""
        loads = ",".join(f"{one.replica_id}:{one.busy}/{one.slots_total}" for one in self.considered[:8])
        return f"rule={self.rule}; replica={self.replica_id or 'none'}; considered={loads or 'none'}"


def place(ask: Ask, replicas: Iterable[ReplicaLoad], *, ahead: int = AHEAD, slack: float = SLACK) -> Verdict:
    """Choose a replica for a request; never one in `ask.excluded`, never a full one."""
    standing = [one for one in replicas if one.replica_id not in ask.excluded]
    if not standing:
        return Verdict(replica_id=None, rule=Rule.NO_REPLICA)
    free = [one for one in standing if has_room(one, ahead=ahead)]
    if not free:
        return Verdict(replica_id=None, rule=Rule.SATURATED, considered=tuple(standing))
    best = _preferred(free)
    if len(best) == 1:
        return Verdict(replica_id=best[0].replica_id, rule=Rule.ONLY, considered=tuple(best))
    key = ask.session_key or ask.prefix_key
    if key:
        rule = Rule.SESSION if ask.session_key else Rule.PREFIX
        ranked = _bounded(rendezvous(key, best), slack)
        return Verdict(replica_id=ranked[0].replica_id, rule=rule, considered=tuple(ranked))
    drawn = _two(best, ask.salt)
    return Verdict(replica_id=drawn[0].replica_id, rule=Rule.TWO_CHOICES, considered=drawn)


def has_room(replica: ReplicaLoad, *, ahead: int = AHEAD) -> bool:
    """True when one more request may be sent there."""
    return replica.busy < replica.slots_total + ahead


def rendezvous(key: int, replicas: Iterable[ReplicaLoad]) -> list[ReplicaLoad]:
    """Order replicas by weighted rendezvous hash: losing one moves only the keys that were its own."""

    def rank(replica: ReplicaLoad) -> tuple[float, str]:
        unit = (_mixed(key ^ text_key(replica.replica_id)) + 1) / (_MASK64 + 2)
        return math.log(unit) / max(replica.slots_total, 1), replica.replica_id

    return sorted(replicas, key=rank, reverse=True)


def prefix_key(prompt: bytes) -> int:
    """Hash a prompt's leading full blocks; 0 (no key) when not even one is full."""
    blocks = min(len(prompt) // BLOCK_BYTES, BLOCKS_MAX)
    if blocks == 0:
        return 0
    return _hash64(prompt[: blocks * BLOCK_BYTES])


@lru_cache(maxsize=16_384)
def text_key(text: str) -> int:
    """Hash a name (a session's, a replica's) to a key; 0 only for the empty one."""
    return _hash64(text.encode()) if text else 0


def _preferred(free: Sequence[ReplicaLoad]) -> list[ReplicaLoad]:
    """Keep the highest priority, and of those the ones with the weights at hand when there are any."""
    top = max(one.priority for one in free)
    best = [one for one in free if one.priority == top]
    return [one for one in best if one.is_local] or best


def _bounded(ranked: list[ReplicaLoad], slack: float) -> list[ReplicaLoad]:
    """Move the replicas above their share of the bounded load to the end, each half in its order."""
    total = sum(one.busy for one in ranked) + 1
    slots = sum(max(one.slots_total, 1) for one in ranked)

    def fits(one: ReplicaLoad) -> bool:
        return one.busy + 1 <= math.ceil(slack * total * max(one.slots_total, 1) / slots)

    return [one for one in ranked if fits(one)] + [one for one in ranked if not fits(one)]


def _two(best: Sequence[ReplicaLoad], salt: int) -> tuple[ReplicaLoad, ReplicaLoad]:
    """Draw two different replicas and put the less loaded first."""
    bits = _mixed(salt)
    first = bits % len(best)
    second = (first + 1 + (bits >> 32) % (len(best) - 1)) % len(best)
    one, other = best[first], best[second]
    return (one, other) if one.load <= other.load else (other, one)


def _hash64(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little") or 1


def _mixed(value: int) -> int:
    """Finalise 64 bits as splitmix64 does (Steele, Lea, Flood, 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK64
    return value ^ (value >> 31)


class Spread(StrEnum):
    """How the pools that name no node are laid over nodes."""

    SPREAD = "spread"
    PACK = "pack"


class NodeRoom(msgspec.Struct, frozen=True, kw_only=True):
    """What a node has left for pools: free bytes of its largest fitting device set, and how many pools it holds."""

    node_id: str
    free_bytes: int
    pools: int = 0
    has_weights: bool = False


def place_pool(need_bytes: int, nodes: Iterable[NodeRoom], spread: Spread = Spread.SPREAD) -> NodeRoom | None:
    """Choose the node for a pool that needs `need_bytes`, or None when it fits nowhere.

    Spreading takes the node with the fewest pools, then the most room; packing takes the one with the least room
    left that still fits. Weights already on the node break ties, then the id, so that leaders agree.
    """
    if need_bytes < 0:
        raise InvalidInput("a pool cannot need less than no memory", need_bytes=need_bytes)
    fitting = [node for node in nodes if node.free_bytes >= need_bytes]
    if not fitting:
        return None
    if spread is Spread.PACK:
        return min(fitting, key=lambda node: (node.free_bytes, not node.has_weights, node.node_id))
    return min(fitting, key=lambda node: (node.pools, not node.has_weights, -node.free_bytes, node.node_id))
