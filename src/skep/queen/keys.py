"""API keys: made, hashed, kept in the store, read by the gateway; and what each has used.

A key is `sk-skep-<id>-<secret>`. The secret has 256 random bits, so a plain SHA-256 of the key is as good as a slow hash,
and only that is kept. Every queen watches the keys, so a revoked one is refused everywhere a moment later.
"""

import hashlib
import hmac
import re
import secrets
from typing import Annotated

import msgspec
from msgspec import Meta

from skep.errors import InvalidInput
from skep.errors.queen import KeyUnknown
from skep.store.base import Compare, Delete, Put, Store

PREFIX, USAGE = "keys/", "usage/"
ADD_TRIES_MAX = 20
_FORM = re.compile(r"sk-skep-([0-9a-f]{12})-[A-Za-z0-9_-]{43}")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a key may use; 0 is no limit. Each queen counts for itself."""

    requests_per_minute: Annotated[int, Meta(ge=0)] = 0
    tokens_per_minute: Annotated[int, Meta(ge=0)] = 0
    concurrency: Annotated[int, Meta(ge=0)] = 0
    tokens_total: Annotated[int, Meta(ge=0)] = 0


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for: a name for people, limits, models (none = all), how urgent, and when it ends (epoch seconds)."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    limits: Limits = Limits()
    models: tuple[str, ...] = ()
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0
    expires_at: float | None = None


class Key(NewKey, frozen=True, kw_only=True):
    """A key as it is kept: its hash, never itself."""

    key_id: str
    sha256: str
    created_at: float


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a key has used since it was made."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    last_at: float = 0.0

    def plus(self, other: "Usage") -> "Usage":
        """Return the sum."""
        return Usage(
            requests=self.requests + other.requests,
            tokens_in=self.tokens_in + other.tokens_in,
            tokens_out=self.tokens_out + other.tokens_out,
            last_at=max(self.last_at, other.last_at),
        )


def key_id_of(token: str) -> str:
    """Return the id that a key's text names, "" when it is no key of ours."""
    match = _FORM.fullmatch(token)
    return match[1] if match else ""


def digest(token: str) -> str:
    """Return what of a key is kept."""
    return hashlib.sha256(token.encode()).hexdigest()


def is_key(token: str, key: Key) -> bool:
    """True when this is the key; the comparison takes the same time whatever differs."""
    return hmac.compare_digest(digest(token), key.sha256)


async def create(store: Store, new: NewKey, *, now_s: float) -> tuple[str, Key]:
    """Make a key; return its text, which is shown once, and what is kept. Raises: InvalidInput, StoreUnavailable."""
    if new.expires_at is not None and new.expires_at <= now_s:
        raise InvalidInput("expires_at lies in the past", param="expires_at")
    key_id = secrets.token_hex(6)
    text = f"sk-skep-{key_id}-{secrets.token_urlsafe(32)}"
    kept = Key(**msgspec.structs.asdict(new), key_id=key_id, sha256=digest(text), created_at=now_s)
    put = Put(key=PREFIX + key_id, value=msgspec.json.encode(kept))
    await store.txn([Compare(key=put.key, revision=0)], [put])
    return text, kept


async def revoke(store: Store, key_id: str) -> None:
    """Delete a key and its counts. Raises: KeyUnknown, StoreUnavailable."""
    if await store.get(PREFIX + key_id) is None:
        raise KeyUnknown(f"no key has the id {key_id!r}: see `skep key list`", key_id=key_id)
    await store.txn([], [Delete(key=PREFIX + key_id), Delete(key=USAGE + key_id)])


async def listed(store: Store) -> list[tuple[Key, Usage]]:
    """Return every key with what it used, oldest first. Raises: StoreUnavailable."""
    keys = [msgspec.json.decode(item.value, type=Key) for item in (await store.list(PREFIX)).items]
    used = {
        item.key.removeprefix(USAGE): msgspec.json.decode(item.value, type=Usage)
        for item in (await store.list(USAGE)).items
    }
    return [(key, used.get(key.key_id, Usage())) for key in sorted(keys, key=lambda one: one.created_at)]


async def add_usage(store: Store, key_id: str, delta: Usage) -> bool:
    """Add to a key's counts, whatever other queens do; False when the key is gone. Raises: StoreUnavailable."""
    for _ in range(ADD_TRIES_MAX):
        key, counted = await store.get(PREFIX + key_id), await store.get(USAGE + key_id)
        if key is None:
            return False
        before = msgspec.json.decode(counted.value, type=Usage) if counted else Usage()
        put = Put(key=USAGE + key_id, value=msgspec.json.encode(before.plus(delta)))
        compares = [
            Compare(key=PREFIX + key_id, revision=key.revision),
            Compare(key=put.key, revision=counted.revision if counted else 0),
        ]
        if (await store.txn(compares, [put])).done:
            return True
    return False
