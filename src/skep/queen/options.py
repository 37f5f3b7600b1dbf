"""Every bound of the gateway in one place. Times in seconds."""

import msgspec

from skep.web.limits import Limits


class GatewayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How long things may take and how many there may be.

    `load_wait_s` bounds the wait for a pool that is loading, `queue_wait_s` the wait for a slot of one that is ready.
    `request_s_max` bounds a whole exchange, `first_byte_s_max` the silence before an answer, `silent_s_max` the one
    inside it. A failed request may be sent again `retries_max` times, and all of them together at most
    `retry_share` of the requests (plus ten), so that a broken fleet is not buried in retries.
    """

    limits: Limits = Limits(body_bytes_max=16 << 20, connections_max=10_000)
    load_wait_s: float = 60.0
    queue_wait_s: float = 60.0
    queue_length_max: int = 512
    request_s_max: float = 900.0
    first_byte_s_max: float = 600.0
    silent_s_max: float = 120.0
    connect_s_max: float = 3.0
    retries_max: int = 2
    retry_share: float = 0.2
    idle_connections_max: int = 64
    idle_connection_s_max: float = 20.0
    held_bytes_max: int = 64 * 1024
    bodies_bytes_max: int = 1 << 30
    tick_s: float = 0.25
