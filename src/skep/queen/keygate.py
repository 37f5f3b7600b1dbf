"""The gate that knows keys: who a token is, what it may use now, what it has used."""

import time
from collections.abc import Callable, Iterable

import msgspec
import structlog

from skep.errors.queen import InvalidKey, KeyForbidden, RateLimited
from skep.errors.store import StoreUnavailable
from skep.queen.gate import ANONYMOUS, Visitor
from skep.queen.keys import Key, Usage, add_usage, is_key, key_id_of
from skep.queen.outcome import Outcome
from skep.store.base import Store

log = structlog.get_logger(__name__)

MINUTE_S = 60.0
PENDING_MAX = 10_000
"""Keys whose usage waits for the store; above that the counts of further keys are dropped, and it is logged."""


class Bucket:
    """A token bucket (in the sense of traffic shaping): refills evenly over a minute, and may go below zero."""

    def __init__(self, per_minute: int, now_s: float) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._at_s = now_s

    def wait_s(self, now_s: float) -> float:
        """Return how long until there is something in it; 0 when there is now."""
        self._fill(now_s)
        return 0.0 if self._level >= 1 else (1 - self._level) * MINUTE_S / self.per_minute

    def take(self, amount: float, now_s: float) -> None:
        """Take out, also more than there is: what was used was used."""
        self._fill(now_s)
        self._level -= amount

    def _fill(self, now_s: float) -> None:
        gained = (now_s - self._at_s) * self.per_minute / MINUTE_S
        self._level, self._at_s = min(self._level + gained, float(self.per_minute)), now_s


class _Account(msgspec.Struct, eq=False):
    """One key at work."""

    key: Key
    visitor: Visitor
    requests: Bucket | None
    tokens: Bucket | None
    running: int = 0
    used: Usage = Usage()


class KeyGate:
    """`Gate` over the keys that the store holds. Without any key, loopback is open to everybody."""

    def __init__(
        self,
        *,
        allow_anonymous: bool,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._allow_anonymous, self._clock, self._now = allow_anonymous, clock, now
        self._accounts: dict[str, _Account] = {}
        self._internal: dict[str, Visitor] = {}
        self._pending: dict[str, Usage] = {}

    def add_internal(self, token: str, name: str) -> None:
        """Let a part of the queen itself in, by a token that never leaves the process."""
        self._internal[token] = Visitor(key_id=name)

    def set_keys(self, keys: Iterable[tuple[Key, Usage]]) -> None:
        """Take over the keys as the store has them; what runs under a kept key goes on being counted."""
        now, before = self._clock(), self._accounts
        self._accounts = {}
        for key, used in keys:
            old = before.get(key.key_id)
            if old is not None and old.key == key:
                old.used = used
                self._accounts[key.key_id] = old
                continue
            limits = key.limits
            self._accounts[key.key_id] = _Account(
                key,
                Visitor(key_id=key.key_id, priority=key.priority, models=frozenset(key.models)),
                Bucket(limits.requests_per_minute, now) if limits.requests_per_minute else None,
                Bucket(limits.tokens_per_minute, now) if limits.tokens_per_minute else None,
                running=old.running if old else 0,
                used=used,
            )

    def set_used(self, key_id: str, used: Usage) -> None:
        """Take over what the store has counted for a key at all queens; what waits to be written comes on top."""
        account = self._accounts.get(key_id)
        if account is not None:
            pending = self._pending.get(key_id)
            account.used = used.plus(pending) if pending else used

    @property
    def is_open(self) -> bool:
        """True while anybody may ask without a key."""
        return self._allow_anonymous and not self._accounts

    def visitor(self, token: str) -> Visitor:
        """Return whom a token belongs to. Raises: InvalidKey."""
        if token in self._internal:
            return self._internal[token]
        account = self._accounts.get(key_id_of(token))
        if account is not None and is_key(token, account.key):
            if account.key.expires_at is not None and account.key.expires_at <= self._now():
                raise InvalidKey("this API key has expired")
            return account.visitor
        if self.is_open:
            return ANONYMOUS
        what = "wrong or revoked" if token else "missing"
        raise InvalidKey(
            f"the API key is {what}: send 'Authorization: Bearer sk-skep-…' (skep key create makes one)"
        )

    def enter(self, visitor: Visitor, model: str) -> None:
        """Count a request in. Raises: KeyForbidden, RateLimited."""
        if visitor.models and model not in visitor.models:
            raise KeyForbidden(f"this key may not use {model[:100]!r}", param="model")
        account = self._accounts.get(visitor.key_id)
        if account is None:
            return
        now, limits = self._clock(), account.key.limits
        if limits.tokens_total and account.used.tokens_in + account.used.tokens_out >= limits.tokens_total:
            raise RateLimited(
                f"this key has used all of its {limits.tokens_total} tokens",
                limit="tokens_total",
                retry_after_s=3600,
            )
        if limits.concurrency and account.running >= limits.concurrency:
            raise RateLimited(
                f"this key may have {limits.concurrency} requests under way",
                limit="concurrency",
                retry_after_s=1,
            )
        for name, bucket in (
            ("requests_per_minute", account.requests),
            ("tokens_per_minute", account.tokens),
        ):
            if bucket is not None and (wait_s := bucket.wait_s(now)):
                message = f"this key may use {bucket.per_minute} {name.replace('_', ' ')}: try again in {wait_s:.0f} s"
                raise RateLimited(message, limit=name, retry_after_s=wait_s)
        if account.requests is not None:
            account.requests.take(1, now)
        account.running += 1

    def leave(self, visitor: Visitor, outcome: Outcome) -> None:
        """Count a request out, with what it used; an engine that does not tell tokens is counted by its events."""
        account = self._accounts.get(visitor.key_id)
        if account is None:
            return
        account.running = max(account.running - 1, 0)
        used = Usage(
            requests=1,
            tokens_in=outcome.tokens_in,
            tokens_out=outcome.tokens_out or outcome.events,
            last_at=self._now(),
        )
        if account.tokens is not None:
            account.tokens.take(used.tokens_in + used.tokens_out, self._clock())
        account.used = account.used.plus(used)
        pending = self._pending.get(visitor.key_id)
        if pending is None and len(self._pending) >= PENDING_MAX:
            log.error("usage_dropped", key_id=visitor.key_id)
            return
        self._pending[visitor.key_id] = pending.plus(used) if pending else used

    async def flush(self, store: Store) -> None:
        """Write what was used to the store; what cannot be written is kept for the next time."""
        pending, self._pending = self._pending, {}
        while pending:
            key_id, delta = pending.popitem()
            try:
                await add_usage(store, key_id, delta)
            except StoreUnavailable:
                for other, used in [(key_id, delta), *pending.items()]:
                    newer = self._pending.get(other)
                    self._pending[other] = used.plus(newer) if newer else used
                raise
