"""What a file server's answer to a download means: its status, its ranges, and how long it asks us to wait (RFC 9110)."""

from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp

from skep.errors.provision import DownloadFailed

OK, PARTIAL, RANGE_NOT_SATISFIABLE = 200, 206, 416
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
RETRYABLE_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class Retry(Exception):
    """The same request may succeed later: a control signal of downloads, never seen outside of them."""

    def __init__(self, why: str, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s


def check_status(answer: aiohttp.ClientResponse, url: str) -> None:
    """Raises: Retry (it may work later), DownloadFailed (it will not)."""
    if answer.status in RETRYABLE_STATUS:
        raise Retry(f"the server said {answer.status}", after_s=retry_after_s(answer))
    if answer.status not in {OK, PARTIAL}:
        raise DownloadFailed(
            f"{url}: the server said {answer.status} {answer.reason}", url=url, status=answer.status
        )


def retry_after_s(answer: aiohttp.ClientResponse) -> float | None:
    """Return how long the server asks us to wait: it may tell seconds, or a date (section 10.2.3)."""
    told = answer.headers.get("Retry-After", "")
    if told.isascii() and told.isdigit():
        return float(told)
    try:
        until = parsedate_to_datetime(told)
        # Against the server's own clock: ours may be wrong by hours.
        now = parsedate_to_datetime(answer.headers.get("Date", ""))
        return max((until - now).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None


def validator_of(answer: aiohttp.ClientResponse) -> str:
    """Return what `If-Range` may hold. A weak tag cannot prove that a range belongs to the same bytes (section 13.1.5)."""
    etag = answer.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")


def total_of_416(answer: aiohttp.ClientResponse) -> int:
    """Return how long the file is by a 416's `Content-Range: bytes */N`; -1 when it does not say."""
    _, _, total = answer.headers.get("Content-Range", "").partition("*/")
    return int(total) if total.isdigit() else -1


def starts_at(answer: aiohttp.ClientResponse, offset: int) -> bool:
    """True when a partial answer goes on exactly where we stopped."""
    return answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
