"""What the queen and its gateway refuse, and what breaks behind them."""

from skep.errors import Conflict, InvalidInput, NotFound, SkepError, Timeout, Unavailable


class NodeUnknown(NotFound):
    """No such node is registered: it has to register again."""

    code = "node_unknown"


class ModelNotServed(NotFound):
    """No pool serves a model of this name."""

    code = "model_not_found"


class ModelLoading(Unavailable):
    """The model's pool is on its way, but not within the time that a request waits for it."""

    code = "model_loading"


class PoolDown(Unavailable):
    """No replica of the model serves, and none is on its way. Fact `cause`: what its hive says."""

    code = "pool_down"


class GatewayQueueFull(Unavailable):
    """The model's queue at the gateway holds as many requests as it may."""

    code, http_status = "queue_full", 429


class QueueTimeout(Unavailable):
    """No slot came free within the time that a request waits at the gateway."""

    code = "queue_timeout"


class ReplicaFailed(SkepError):
    """A replica did not answer, or closed before its answer began, and no other could take the request."""

    code, http_status, retryable = "replica_failed", 502, True


class StreamBroken(SkepError):
    """The replica ended in the middle of its answer; what came before is all there is."""

    code, http_status, retryable = "stream_broken", 502, True


class GatewayTimeout(Timeout):
    """The request did not end within the gateway's limit."""


class GatewayStopping(Unavailable):
    """The gateway is shutting down; ask again, another or the next one will answer."""

    code = "gateway_stopping"


class BodiesFull(Unavailable):
    """The gateway holds as many bytes of request bodies as it may."""

    code = "gateway_busy"


class InvalidKey(InvalidInput):
    """The API key is missing, wrong, revoked or expired."""

    code, http_status = "invalid_api_key", 401


class KeyForbidden(InvalidInput):
    """The API key may not use this model."""

    code, http_status = "model_forbidden", 403


class RateLimited(Unavailable):
    """The API key has used what it may for now. Fact `limit`: which one."""

    code, http_status = "rate_limit_exceeded", 429


class KeyUnknown(NotFound):
    """No API key has this id."""

    code = "key_unknown"


class PoolUnknown(NotFound):
    """No pool has this id."""

    code = "pool_unknown"


class PoolConflict(Conflict):
    """The pool was changed by somebody else in between; read it again."""

    code = "pool_conflict"


class NotLeader(Conflict):
    """Another queen leads; its reconciliation counts."""

    code = "not_leader"


class HiveRefused(SkepError):
    """A hive did not take what the queen asked of it."""

    code, http_status, retryable = "hive_refused", 502, True
