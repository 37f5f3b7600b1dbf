"""The life of a pool, derived from its replicas and the operator's wish. No other file knows these rules."""

from enum import StrEnum, auto
from typing import Final

from skep.lifecycle.table import Table


class PoolState(StrEnum):
    """Where a pool is. `unready` retries with backoff and has a cause; `idle` loads on demand."""

    DECLARED = auto()
    PROVISIONING = auto()
    STARTING = auto()
    READY = auto()
    UNREADY = auto()
    RELOADING = auto()
    UNLOADING = auto()
    IDLE = auto()
    DRAINING = auto()
    OFFLINE = auto()


class PoolEvent(StrEnum):
    """What can happen to a pool."""

    PRELOAD = auto()
    PROVISIONED = auto()
    PROVISION_FAILED = auto()
    DOES_NOT_FIT = auto()
    REPLICA_READY = auto()
    REPLICAS_EXHAUSTED = auto()
    REPLICAS_LOST = auto()
    RETRY = auto()
    RELOAD = auto()
    RELOADED = auto()
    ROLLED_BACK = auto()
    RELOAD_FAILED = auto()
    IDLE = auto()
    UNLOADED = auto()
    WANTED = auto()
    DRAIN = auto()
    RETIRE = auto()
    DRAINED = auto()


_S, _E = PoolState, PoolEvent
POOL: Final = Table(
    "pool",
    states=PoolState,
    events=PoolEvent,
    initial=_S.DECLARED,
    transitions={
        (_S.DECLARED, _E.PRELOAD): _S.PROVISIONING,
        (_S.DECLARED, _E.RETIRE): _S.OFFLINE,
        (_S.PROVISIONING, _E.PROVISIONED): _S.STARTING,
        (_S.PROVISIONING, _E.PROVISION_FAILED): _S.UNREADY,
        (_S.PROVISIONING, _E.DOES_NOT_FIT): _S.UNREADY,
        (_S.PROVISIONING, _E.DRAIN): _S.DRAINING,
        (_S.PROVISIONING, _E.RETIRE): _S.DRAINING,
        (_S.STARTING, _E.REPLICA_READY): _S.READY,
        (_S.STARTING, _E.REPLICAS_EXHAUSTED): _S.UNREADY,
        (_S.STARTING, _E.DRAIN): _S.DRAINING,
        (_S.STARTING, _E.RETIRE): _S.DRAINING,
        (_S.READY, _E.REPLICAS_LOST): _S.UNREADY,
        (_S.READY, _E.DRAIN): _S.DRAINING,
        (_S.READY, _E.RETIRE): _S.DRAINING,
        (_S.READY, _E.RELOAD): _S.RELOADING,
        (_S.READY, _E.IDLE): _S.UNLOADING,
        (_S.UNREADY, _E.RETRY): _S.PROVISIONING,
        (_S.UNREADY, _E.REPLICA_READY): _S.READY,
        (_S.UNREADY, _E.DRAIN): _S.DRAINING,
        (_S.UNREADY, _E.RETIRE): _S.DRAINING,
        (_S.UNREADY, _E.RELOAD): _S.RELOADING,
        (_S.RELOADING, _E.RELOADED): _S.READY,
        (_S.RELOADING, _E.ROLLED_BACK): _S.READY,
        (_S.RELOADING, _E.RELOAD_FAILED): _S.UNREADY,
        (_S.RELOADING, _E.DRAIN): _S.DRAINING,
        (_S.RELOADING, _E.RETIRE): _S.DRAINING,
        (_S.UNLOADING, _E.UNLOADED): _S.IDLE,
        (_S.IDLE, _E.WANTED): _S.PROVISIONING,
        (_S.IDLE, _E.RETIRE): _S.OFFLINE,
        (_S.DRAINING, _E.DRAINED): _S.OFFLINE,
        (_S.OFFLINE, _E.PRELOAD): _S.PROVISIONING,
    },
)

advance = POOL.advance
