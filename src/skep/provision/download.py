"""One file from a URL to a path: resumed, checked, and shared by everybody who asks at once.

The bytes that came stand in `<target>.part` beside `<target>.part.json` (which server state they belong to) until the
checksum is right; only then does the rename make `target` appear. A second asker waits on the lock and finds the file.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import urljoin, urlsplit

import aiohttp
import msgspec

from skep.errors.provision import BadReference, ChecksumMismatch, DownloadFailed
from skep.provision.answers import (
    PARTIAL,
    RANGE_NOT_SATISFIABLE,
    REDIRECTS,
    Retry,
    check_status,
    starts_at,
    total_of_416,
    validator_of,
)
from skep.provision.digest import file_sha256
from skep.provision.files import check_room, sync_folder, writing
from skep.provision.lock import locked
from skep.provision.progress import OnProgress, Progress, silent

CHUNK_BYTES: Final = 1 << 20
TRIES_MAX: Final = 6
BACKOFF_S_FIRST, BACKOFF_S_MAX = 0.5, 30.0
REDIRECTS_MAX: Final = 6
"""Addresses that one download may go through, its own the first of them."""
STALL_S_MAX: Final = 30.0
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """What to download. An empty `sha256` skips the check (the caller knows another way)."""

    url: str
    target: Path
    sha256: str = ""


class _Part(msgspec.Struct, kw_only=True):
    """Which server state the bytes in `.part` belong to."""

    url: str
    validator: str = ""


async def download(
    want: Want,
    *,
    on_progress: OnProgress = silent,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    stall_s_max: float = STALL_S_MAX,
) -> Path:
    """Bring `want.url` to `want.target`, or find it there already. Returns the target.

    Raises: BadReference, DownloadFailed, ChecksumMismatch, NoSpace, LockTimedOut. After DownloadFailed and NoSpace
    the bytes that came are kept, and the next call goes on from them.
    """
    _check_url(want.url)
    with writing(want.target.parent):
        want.target.parent.mkdir(parents=True, exist_ok=True)
    name = want.target.name
    async with locked(
        want.target.with_name(f".{name}.lock"),
        on_wait=lambda: on_progress(Progress(step="wait", detail=f"another download of {name}")),
    ):
        if want.target.exists():
            return want.target
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=stall_s_max, sock_read=stall_s_max)
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
            await _with_retries(session, want, on_progress, sleep)
        await asyncio.to_thread(_verify_and_publish, want)
    return want.target


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and parts.hostname in LOOPBACK:
        return
    raise BadReference(f"{url!r} is not https:// (plain http is for loopback only)", url=url)


async def _with_retries(
    session: aiohttp.ClientSession,
    want: Want,
    on_progress: OnProgress,
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    why = ""
    for attempt in range(TRIES_MAX):
        try:
            await _attempt(session, want, on_progress)
        except Retry as retry:
            why = str(retry)
            pause_s = retry.after_s or BACKOFF_S_FIRST * 2**attempt
            on_progress(Progress(step="retry", detail=f"{why}; again in {min(pause_s, BACKOFF_S_MAX):g} s"))
            if attempt + 1 < TRIES_MAX:
                await sleep(min(pause_s, BACKOFF_S_MAX))
        else:
            return
    raise DownloadFailed(
        f"{want.url}: {why}, after {TRIES_MAX} tries; run it again to resume", url=want.url, why=why
    )


async def _attempt(session: aiohttp.ClientSession, want: Want, on_progress: OnProgress) -> None:
    part, state_path = _part_paths(want.target)
    state = _read_state(state_path, want.url)
    have = part.stat().st_size if part.exists() and state.validator else 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": state.validator}
    try:
        async with await _follow(session, want.url, headers) as answer:
            if answer.status == RANGE_NOT_SATISFIABLE:  # What we have is stale, or all of it.
                if total_of_416(answer) == have:
                    return
                _forget(want.target)
                raise Retry("the server no longer has the range that we asked for", after_s=BACKOFF_S_FIRST)
            check_status(answer, want.url)
            offset = have if answer.status == PARTIAL and starts_at(answer, have) else 0
            await _receive(answer, want, offset, on_progress)
    except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
        raise Retry(str(error) or type(error).__name__) from error


async def _follow(
    session: aiohttp.ClientSession, url: str, headers: dict[str, str]
) -> aiohttp.ClientResponse:
    """Return the answer at the end of the redirects, each looked at before it is followed: none may leave https."""
    at = url
    for _ in range(REDIRECTS_MAX):
        _check_url(at)
        answer = await session.get(at, headers=headers, allow_redirects=False)
        if answer.status not in REDIRECTS or "Location" not in answer.headers:
            return answer
        answer.release()
        at = urljoin(at, answer.headers["Location"])
    raise DownloadFailed(f"{url}: more than {REDIRECTS_MAX - 1} redirects", url=url)


async def _receive(answer: aiohttp.ClientResponse, want: Want, offset: int, on_progress: OnProgress) -> None:
    part, state_path = _part_paths(want.target)
    length = answer.content_length
    total = offset + length if length is not None else 0
    check_room(want.target.parent, length or 0)
    done = offset
    with writing(part):
        state_path.write_bytes(msgspec.json.encode(_Part(url=want.url, validator=validator_of(answer))))
        with part.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.truncate()
            async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                # A slow disk must not stop whoever shares our event loop.
                await asyncio.to_thread(file.write, chunk)
                done += len(chunk)
                on_progress(Progress(step="download", done=done, total=total, detail=want.target.name))
            await asyncio.to_thread(_flush, file)
    if total and done < total:
        raise Retry(f"the connection closed after {done} of {total} bytes")


def _verify_and_publish(want: Want) -> None:
    part, state_path = _part_paths(want.target)
    if want.sha256 and (found := file_sha256(part)) != want.sha256:
        size = part.stat().st_size
        _forget(want.target)
        raise ChecksumMismatch(
            f"{want.url} gave {size} bytes with sha256 {found}, not {want.sha256}: check the reference",
            url=want.url,
            expected=want.sha256,
            found=found,
        )
    part.rename(want.target)
    sync_folder(want.target.parent)
    state_path.unlink(missing_ok=True)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _part_paths(target: Path) -> tuple[Path, Path]:
    return target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.part.json")


def _read_state(path: Path, url: str) -> _Part:
    try:
        state = msgspec.json.decode(path.read_bytes(), type=_Part)
    except (FileNotFoundError, msgspec.DecodeError):
        return _Part(url=url)
    return state if state.url == url else _Part(url=url)


def _forget(target: Path) -> None:
    for path in _part_paths(target):
        path.unlink(missing_ok=True)
