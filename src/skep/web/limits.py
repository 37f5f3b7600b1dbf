"""How much of anything one client may use of a server."""

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one listening server. Times in seconds.

    `head_s` and `body_s` bound how long a request's head and body may take to arrive whole, counted from their first
    byte: a client that drips bytes is cut off with 408. `idle_s` bounds a connection on which no request has begun.
    `stall_s` bounds how long a client may leave its response unread before its connection is reset.
    `write_buffer_bytes` and `send_buffer_bytes` (the kernel's; 0 leaves it alone) bound what a stalled reader holds.
    """

    head_bytes_max: int = 32 * 1024
    headers_max: int = 100
    body_bytes_max: int = 8 * 1024 * 1024
    head_s: float = 10.0
    body_s: float = 30.0
    idle_s: float = 60.0
    stall_s: float = 120.0
    connections_max: int = 1024
    write_buffer_bytes: int = 64 * 1024
    send_buffer_bytes: int = 128 * 1024
    backlog: int = 1024
