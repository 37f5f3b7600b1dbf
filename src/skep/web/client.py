"""The one way to make an HTTP client: aiohttp with stated limits, and none of the environment's proxies."""

import aiohttp

from skep.web.auth import fingerprint

CONNECT_S = 5.0


def make_client(
    base_url: str | None = None,
    *,
    token: str | None = None,
    total_s: float | None = 30.0,
    between_bytes_s: float | None = None,
    connections_max: int = 100,
    headers: dict[str, str] | None = None,
    keeps_alive: bool = True,
) -> aiohttp.ClientSession:
    """Return a session; close it with `async with`.

    `total_s` bounds a whole exchange: None for streams, which `between_bytes_s` then bounds. Redirects are the
    caller's to allow. A session belongs to one event loop. Without `keeps_alive` each exchange has a connection of its own,
    so none meets one that the server is about to close.
    """
    given = dict(headers or {})
    if token:
        given["authorization"] = f"Bearer {token}"
    return aiohttp.ClientSession(
        base_url,
        headers=given,
        timeout=aiohttp.ClientTimeout(total=total_s, sock_connect=CONNECT_S, sock_read=between_bytes_s),
        connector=aiohttp.TCPConnector(limit=connections_max, ttl_dns_cache=60, force_close=not keeps_alive),
        trust_env=False,
        auto_decompress=True,
    )


def describe_token(token: str | None) -> str:
    """Return how a log names a token."""
    return f"sha256:{fingerprint(token)}" if token else "none"
